import type { Progress } from '../copy/progress.ts'
import type { OpenOptions } from '../source/open.ts'

export type { Progress } from '../copy/progress.ts'
export type { OpenOptions } from '../source/open.ts'

/** How any copy is run; all optional. */
export interface CopyOptions {
  /** Stops the run; the promise rejects with BackupError ABORTED and the target is as before. */
  signal?: AbortSignal
  /** Called at most ten times a second and once at the end. */
  onProgress?: (progress: Progress) => void
  /** Replace a target that exists. Its old content stays until the new one is complete. */
  force?: boolean
  /** Most read and write requests in flight, 1 to 1024. Default 64. */
  requests?: number
  /** Times that an area which cannot be read is read again, 0 to 100. Default 3. */
  retries?: number
  /** Most bytes read per second. Default: no limit. */
  rateLimit?: number
  /** How the kernel is asked. Default `auto`: io_uring, or threads where it is refused. */
  engine?: 'auto' | 'io_uring' | 'threads'
  /** O_DIRECT. Default `auto`: where file system and cluster size allow it; `on` fails otherwise. */
  direct?: 'auto' | 'on' | 'off'
}

/** How the clusters of a new qcow2 image are made. */
export interface ImageOptions {
  /** Bytes, a power of two from 512 to 2 MiB. Default 64 KiB. */
  clusterSize?: number
  /** Compress data clusters. Default: no. */
  compress?: 'zlib' | 'zstd'
  /** zlib 1 to 12 (libdeflate's scale), zstd 1 to 22. */
  compressionLevel?: number
}

/** For a source that keeps a point in time for as long as it is needed. */
export interface DiscardOptions {
  /**
   * Once a second, what is durable in the target by then is discarded at the source (NBD TRIM), in
   * multiples of this many bytes: what keeps the point in time, such as QEMU's fleecing image,
   * shrinks as the copy goes on. A copy that fails later cannot be taken again from that source.
   * QEMU takes 64 KiB or the cluster size of the fleecing image, whichever is larger.
   */
  discardAfterCopy?: number
}

/** How it is made sure that a new image holds what was read. */
export interface VerifyingOptions {
  /**
   * Before the image gets its name, check it, read back what was written, and compare that with a
   * hash of the source's blocks as they were read. Takes as long as reading the image.
   */
  verify?: boolean
  /** Write what `verifyManifests` needs into a file beside the image, `IMAGE.manifest.json`. */
  manifest?: boolean
}

export interface FullOptions
  extends CopyOptions,
    OpenOptions,
    ImageOptions,
    DiscardOptions,
    VerifyingOptions {}

export interface IncrementalOptions
  extends CopyOptions,
    OpenOptions,
    ImageOptions,
    DiscardOptions,
    VerifyingOptions {
  /** The bitmap that tells what changed since the previous backup; a custom source says that itself. */
  bitmap?: string
  /**
   * Path of the previous backup, which the new one builds on: qcow2, or raw if `backingFormat` says
   * so. It must hold the disk as it was when the bitmap began.
   */
  backing: string
}

export interface RestoreOptions extends CopyOptions, OpenOptions, ImageOptions {
  /** The target's format. Default raw; the image options are for qcow2. */
  to?: 'raw' | 'qcow2'
  /** Have the NBD server that is restored to give room to what is zero, too. */
  noHole?: boolean
}

/**
 * A hash of a disk's content: the hash of the hashes of its blocks, as imageio has it by default. Of
 * an image over a backing file it is that of what the image itself holds, see
 * native/copy/content_hash.h.
 */
export interface ContentHash {
  algorithm: 'blake2b-256'
  /** Bytes; the last block may be shorter. */
  blockSize: number
  /** In hexadecimal. */
  checksum: string
}

/** What a copy did. dataBytes + zeroBytes + unchangedBytes = virtualSize. */
export interface CopyResult {
  target: string
  /** Bytes. */
  virtualSize: number
  /** Guest bytes stored as data clusters (raw: written). */
  dataBytes: number
  /** Guest bytes recorded as, or left to read as, zero. */
  zeroBytes: number
  /** Guest bytes left to the backing file. */
  unchangedBytes: number
  /** The target file's length, or its size if it is a device, bytes. */
  fileSize: number
  /** The blocks the file system gave it, bytes; a device has all of its own. */
  allocatedBytes: number
  elapsedSeconds: number
  /** How the kernel was asked, and whether the target was written past the page cache. */
  engine: 'io_uring' | 'threads'
  direct: boolean
  /** Of the content as it was read, with `verify` or `manifest`. */
  content?: ContentHash
  /** With `verify`: the image was found sound, and its content that which was read. */
  verified?: true
  /** Path of the manifest, if one was wanted. */
  manifest?: string
  /** What must be known about the result, such as that a bitmap was disabled. */
  notes?: readonly string[]
}
