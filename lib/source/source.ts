import type { Extent } from '../extents/extent.ts'
import type { Range } from '../extents/range-set.ts'
import type { SourceFile } from '../image/file.ts'
import type { ChainImage } from '../image/image-chain.ts'
import type { SourceExport } from '../nbd/export.ts'
import type { Progress } from '../progress.ts'

export type { SourceFile } from '../image/file.ts'
export type { SourceExport } from '../nbd/export.ts'

/**
 * Where the guest bytes of one run are.
 * - `data`: as they are, in `stores[store]` at `offset`.
 * - `deflate`, `zstd`: inside one compressed cluster, whose stream lies in `stores[store]` from
 *   `offset` for `size` bytes (sector-rounded: the stream may end before), and which expands to
 *   `clusterSize` bytes; the run starts `within` bytes into those.
 * - `zero`: reads as zero because a layer says so.
 * - `hole`: reads as zero because no layer holds anything.
 */
export type Mapping =
  | { kind: 'zero' | 'hole'; start: number; length: number }
  | { kind: 'data'; start: number; length: number; store: number; offset: number }
  | {
      kind: 'deflate' | 'zstd'
      start: number
      length: number
      store: number
      offset: number
      size: number
      clusterSize: number
      within: number
    }

/** Guest bytes of a source that the calling program reads by itself, at their guest offsets. */
export interface SourceReader {
  readonly kind: 'reader'
  readonly path: string
  /** Bytes. */
  readonly size: number
  readonly identity: string
  /** Reads exactly `length` bytes. `signal`: they are no longer needed. */
  read(start: number, length: number, signal: AbortSignal): Promise<Uint8Array>
}

/** A store of guest bytes, by `kind`. */
export type SourceStore = SourceFile | SourceExport | SourceReader

/** Discards ranges of guest bytes that are stored elsewhere now, or are not needed. */
export type Discard = (ranges: readonly Range[]) => Promise<void>

export interface ExtentsOptions {
  /** Read the data to find zeroes in it: takes as long as reading the disk. Default: no. */
  detectZeroes?: boolean
  /** Called at most ten times a second, and once at the end. */
  onProgress?: (progress: Progress) => void
}

/** A mapping without its guest range. */
export function extentOf({ kind, start, length }: Mapping): Extent {
  return { start, length, zero: kind === 'zero' || kind === 'hole', hole: kind === 'hole' }
}

/** A mapping and whether the bitmap that a source was opened with has it as written since. */
export type DirtyMapping = Mapping & { dirty: boolean }

/** The dirty bitmap that a source was opened with. */
export interface SourceBitmap {
  readonly name: string
  /** Bytes per bit; unknown to NBD clients. */
  readonly granularity?: number
  /** Caveats for the result, such as that the bitmap is disabled. */
  readonly notes: readonly string[]
}

/** A disk as a copy reads it. */
export interface Disk {
  /** As messages name it. */
  readonly name: string
  /** Virtual size in bytes, a multiple of 512. */
  readonly size: number
  /** Stores that mappings point into: `Mapping.store` is an index here. */
  readonly stores: readonly SourceStore[]
  /**
   * Where every byte from 0 to `size` is: batches of ordered, contiguous mappings, made as they are
   * asked for, each of bounded size.
   * @throws BackupError BAD_IMAGE on the first malformed table entry
   */
  mappings(): AsyncGenerator<readonly Mapping[]>
  /**
   * Like `mappings`, each mapping being wholly dirty or wholly clean.
   * REQUIRES: opened with a bitmap.
   */
  dirtyMappings(): AsyncGenerator<readonly DirtyMapping[]>
  /**
   * Cancels the two above where they may wait for long: they reject then. Nothing else
   * than closing is to be done with the disk afterwards.
   */
  interrupt?(): void
}

/** A disk that can be read. The caller that opened it closes it. */
export interface Source extends Disk {
  readonly format: 'raw' | 'qcow2'
  /** Of a file: the image and all that it builds on, top first. */
  readonly images?: readonly ChainImage[]
  /** The bitmap that it was opened with. */
  readonly bitmap?: SourceBitmap
  /** The internal snapshot that it was opened at. */
  readonly snapshot?: { readonly id: string; readonly name: string }
  /** Caveats about it, or about the copies made of it so far. */
  readonly notes?: readonly string[]
  /** It reports zeroes and holes; if false, all of it counts as data. */
  readonly canExtents: boolean
  /** `extents` can find zeroes by reading. */
  readonly canDetectZeroes: boolean
  /** Copied ranges can be discarded there. */
  readonly canDiscard: boolean
  /** `mappings` as extents, neighbours with equal flags merged over the whole disk. */
  extents(options?: ExtentsOptions): AsyncGenerator<Extent>
  /**
   * Returns the function that discards copied ranges.
   * @param granule bytes that the areas are to be multiples of
   * @throws BackupError UNSUPPORTED or USAGE saying why this one cannot, unless `canDiscard`; USAGE
   * if the granule is too small
   */
  discarding(granule: number): Discard
  /**
   * Has the server that hands it out take the hash of the whole disk, as content hashes are taken (a server
   * that can).
   * @param blockSize bytes
   * @returns in hexadecimal
   * @throws BackupError IO, ABORTED
   */
  checksum?(blockSize: number): Promise<string>
  /** @throws BackupError SOURCE_CHANGED if a file's size has changed since it was opened */
  checkUnchanged(): Promise<void>
  close(): Promise<void>
}
