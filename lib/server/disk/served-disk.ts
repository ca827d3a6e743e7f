import type { Range } from '../../extents/range-set.ts'

/** A run of guest bytes as the API tells of it. */
export interface ServedExtent {
  start: number
  length: number
  zero: boolean
  /** No layer holds anything; of a dirty view, unknown. */
  hole: boolean
  dirty: boolean
}

/** The disk behind a ticket. All methods may be called at once, and throw BackupError. */
export interface ServedDisk {
  /** Bytes. */
  readonly size: number
  /** Changes with the content, where that is known to last. */
  readonly etag?: string
  /** Extents can say what is dirty. */
  readonly hasDirty: boolean
  /** Bytes that offsets and lengths of writes have to be multiples of. */
  readonly unit: number
  /**
   * The bytes of a range within the disk, in order, in pieces that are not to be changed, each of which lasts until
   * the next one is asked for.
   */
  read(range: Range): AsyncIterable<Buffer>
  /** Contiguous extents of a range within the disk; neighbours may have equal flags. */
  extents(context: 'zero' | 'dirty', range: Range): AsyncIterable<readonly ServedExtent[]>
  /** Of one that can be written. */
  readonly writer?: DiskWriter
  /**
   * Gives a new image its name, if all that was written to it was flushed.
   * @returns whether it has it; undefined of a disk that is no new image
   */
  finish?(): Promise<boolean>
  /** Releases everything; a new image that has no name yet is gone. Never fails. */
  close(): Promise<void>
}

/** Writes to a disk. */
export interface DiskWriter {
  /** The bytes may be changed when it resolves. */
  write(start: number, bytes: Buffer): Promise<void>
  zero(start: number, length: number): Promise<void>
  /** All that was written before is durable. */
  flush(): Promise<void>
}
