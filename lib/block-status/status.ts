import type { OpenFile } from '../image/file.ts'
import type { SourceExport } from '../nbd/export.ts'

/**
 * The status that QEMU's block layer reports for a range of guest bytes, as flags (BDRV_BLOCK_… in its
 * include/block/block-common.h). The output of `map`, `compare` and `measure` follows from them, so
 * every flag and every length here is QEMU's own answer, also where another would be as true.
 */
export const DATA = 0x01
/** Reads as zero. */
export const ZERO = 0x02
/** `Status.offset` says where in `Status.file` the bytes are. */
export const OFFSET_VALID = 0x04
/** The image that was asked holds it: it does not leave it to its backing file. */
export const ALLOCATED = 0x10
/** The range ends where the image ends. */
export const EOF = 0x20
/** The file below has to be asked, too: it may know of holes. Never in a final answer. */
export const RECURSE = 0x40
/** Since 8.2. */
export const COMPRESSED = 0x80

/** The stream of a compressed cluster; the range starts `within` bytes into the expanded cluster. */
export interface Stream {
  method: 'deflate' | 'zstd'
  /** Host offset, bytes. */
  offset: number
  /** Bytes, rounded up to a sector: the stream may end before. */
  size: number
  clusterSize: number
  within: number
}

/** One answer: holds for `length` bytes from where was asked. */
export interface Status {
  flags: number
  /** Bytes; 0 only past the end of an image. */
  length: number
  /** The file that holds the bytes. */
  file?: HostFile
  /** Host offset in it, bytes; meant only with OFFSET_VALID. */
  offset: number
  stream?: Stream
  /** The export that holds the bytes, at `offset`, if no file does. */
  remote?: SourceExport
}

/** A file that holds guest bytes. */
export interface HostFile extends OpenFile {
  /** As QEMU names it in its output. */
  readonly filename: string
}

/** The store that guest bytes are read from. */
export type GuestStore = HostFile | SourceExport

/** An answer, or the promise that asking again will get further: something has to be read first. */
export type Answer = Status | Promise<void>

/** The status cannot be known, because a table is corrupt; QEMU ends with EIO. */
export class StatusError extends Error {
  override readonly name = 'StatusError'
  /** QEMU's message; undefined if it has already reported the image as corrupt. */
  readonly corruption: string | undefined

  constructor(message: string, told = false) {
    super(message)
    this.corruption = told ? undefined : message
  }
}

/** Waits for an answer if needed. Most come synchronously, from a table already in memory. */
export async function answered(ask: () => Answer): Promise<Status> {
  for (;;) {
    const answer = ask()
    if (!(answer instanceof Promise)) return answer
    await answer
  }
}
