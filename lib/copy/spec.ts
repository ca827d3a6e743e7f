import type { CopyJob } from '../native.ts'
import type { Disk } from '../source/source.ts'
import type { Progress } from './copy-progress.ts'

/** The result of a copy: image, raw file, patch or hash. */
export type TargetFormat = Qcow2Format | RawFormat | PatchFormat | HashFormat

/** A new image. */
export interface Qcow2Format {
  kind: 'qcow2'
  clusterBits: number
  /** The image's backing file: only ranges dirty in the source's bitmap are copied then. */
  backing?: RecordedBacking
  /** Whether ranges of nothing but zero flags may share one L2 table. */
  sharedTables: boolean
  compression?: Compression
}

/** The backing file of a new image. */
export interface RecordedBacking {
  /** Its name and its format as they are recorded in the image. */
  name: string
  format: string
  /** Virtual size, bytes. */
  size: number
}

/** How the clusters of an image are compressed. */
export interface Compression {
  type: 'zlib' | 'zstd'
  level: number
}

/** The disk as it is. */
export interface RawFormat {
  kind: 'raw'
}

/** Written in place into an existing file; skipped ranges are left unchanged. */
export interface PatchFormat {
  kind: 'patch'
  /** Bytes that the starts and lengths of all rows, and the size, are multiples of. */
  unit: number
}

/** Nothing is written; the data read is only hashed. */
export interface HashFormat {
  kind: 'hash'
  /** As that of a patch. */
  unit: number
  /** Skipped ranges are not part of the content; else they count as zero. */
  hasBacking: boolean
}

/** An image of a chain that is copied. It has clusters of the target's size, and a disk of the same size. */
export interface HashedLayer {
  /** Index of its store in the chain's disk. */
  store: number
  /** What it holds itself, from store 0. */
  own: Disk
  hasBacking: boolean
}

/** Parameters of a copy, checked and complete. */
export interface JobOptions<Format extends TargetFormat = TargetFormat> {
  format: Format
  engine: 'auto' | 'io_uring' | 'threads'
  direct: 'auto' | 'on' | 'off'
  /** Maximum of reads in flight. */
  requests: number
  /** Times that an area which cannot be read is read again. */
  retries: number
  /** Bytes read per second; without it as fast as it goes. */
  rateLimit?: number
  /** Instead: a running copy whose limit is for both together. */
  sharesRateOf?: CopyJob
  /** Bytes of buffers; default: what a copy alone needs. */
  memory?: number
  /** Take the hash of the content. */
  hash?: boolean
  /** Images of the chain of which the hash is taken as well, from what is read for the copy as far as it goes. */
  layers?: readonly HashedLayer[]
  signal?: AbortSignal
  onProgress?: (progress: Progress) => void
}
