import type {
  CopyOptions,
  DiscardOptions,
  ImageOptions,
  TableOptions,
  VerifyingOptions,
} from '../options.ts'
import type { OpenOptions } from '../source/open-source.ts'

export type {
  CopyOptions,
  DiscardOptions,
  ImageOptions,
  TableOptions,
  VerifyingOptions,
} from '../options.ts'
export type { Progress } from '../progress.ts'
export type { OpenOptions } from '../source/open-source.ts'

/** Options of `fullBackup`; sizes in bytes. */
export interface FullOptions
  extends CopyOptions,
    OpenOptions,
    ImageOptions,
    DiscardOptions,
    VerifyingOptions {}

/** Options of `incrementalBackup`; sizes in bytes. */
export interface IncrementalOptions
  extends CopyOptions,
    Omit<OpenOptions, 'snapshot'>,
    ImageOptions,
    TableOptions,
    DiscardOptions,
    VerifyingOptions {
  /** The bitmap with the changes since the previous backup; a custom source reports them itself. */
  bitmap?: string
  /**
   * Path of the previous backup, the new image's backing file: qcow2, or raw with `backingFormat:
   * 'raw'`. It must hold the disk as it was when the bitmap began.
   */
  backing: string
}

/** Options of `restore`; sizes in bytes. */
export interface RestoreOptions extends CopyOptions, OpenOptions, ImageOptions {
  /** The target's format. Default raw; the image options are for qcow2. */
  outputFormat?: 'raw' | 'qcow2'
  /**
   * Compare the backup with the manifests beside its images. Default: a single image that has one is
   * compared while it is read. True: every image of the chain is checked and read first. False:
   * manifests are ignored.
   */
  verify?: boolean
  /** Have the NBD server allocate space for zeroes, too. */
  noHole?: boolean
}

/**
 * A hash of a disk's content: the hash of the hashes of its blocks, imageio's default. For an image
 * with a backing file it covers only the image's own clusters, see native/copy/content_hash.h.
 */
export interface ContentHash {
  algorithm: 'blake2b-256'
  /** Bytes; the last block may be shorter. */
  blockSize: number
  /** In hexadecimal. */
  checksum: string
}

/** Result of a copy. dataBytes + zeroBytes + unchangedBytes = virtualSize. */
export interface CopyResult {
  /** As given; where it is now if that does not lead to it any more, which `notes` say. */
  target: string
  /** Bytes. */
  virtualSize: number
  /** Guest bytes stored as data clusters (raw: written). */
  dataBytes: number
  /** Guest bytes recorded as, or left to read as, zero. */
  zeroBytes: number
  /** Guest bytes left to the backing file. */
  unchangedBytes: number
  /** Length of the target file, or size of the device, export or custom target, bytes. */
  fileSize: number
  /**
   * Blocks that the file system allocated, bytes. A device or an export counts in full; a custom target
   * has the bytes written.
   */
  allocatedBytes: number
  elapsedSeconds: number
  /** The I/O engine used. */
  engine: 'io_uring' | 'threads'
  /** The target was written with O_DIRECT. */
  direct: boolean
  /** Hash of the content as it was read, with `verify` or `manifest`. */
  content?: ContentHash
  /** With `verify`: the image is sound and its content equals the data read. */
  verified?: true
  /** Path of the manifest, with `manifest`. */
  manifest?: string
  /** Caveats, such as that a bitmap was disabled. */
  notes?: readonly string[]
}
