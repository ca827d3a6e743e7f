/**
 * A run of guest bytes with equal status. Lists of extents are ordered, contiguous, start at 0
 * and end at the virtual size.
 */
export interface Extent {
  /** Guest offset, bytes. */
  start: number
  /** Bytes, never 0. */
  length: number
  /** Reads as zero through the whole chain; the only flag by which bytes may be skipped. */
  zero: boolean
  /** Nothing is stored for it in any layer. A hint; `hole` implies `zero` for files. */
  hole: boolean
}
