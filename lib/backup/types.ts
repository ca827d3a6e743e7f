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

export interface FullOptions
  extends CopyOptions,
    OpenOptions,
    ImageOptions,
    DiscardOptions,
    VerifyingOptions {}

export interface IncrementalOptions
  extends CopyOptions,
    Omit<OpenOptions, 'snapshot'>,
    ImageOptions,
    TableOptions,
    DiscardOptions,
    VerifyingOptions {
  /** The bitmap that records what changed since the previous backup; a custom source says that itself. */
  bitmap?: string
  /**
   * Path of the previous backup, which the new one builds on: qcow2, or raw if `backingFormat` says
   * so. It must hold the disk as it was when the bitmap began.
   */
  backing: string
}

export interface RestoreOptions extends CopyOptions, OpenOptions, ImageOptions {
  /** The target's format. Default raw; the image options are for qcow2. */
  outputFormat?: 'raw' | 'qcow2'
  /**
   * Compare the backup with the manifests beside its images. Default: what is read of a single image
   * that has one is compared while it is read. True: every image of the chain is checked and read
   * first. False: manifests are ignored.
   */
  verify?: boolean
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
  /** As given; where it is now if its directory was moved meanwhile, which `notes` say. */
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
