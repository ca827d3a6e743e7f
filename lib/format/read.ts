import { BackupError, ioError } from '../errors.ts'
import type { FileHandle } from '../files.ts'

/** A file open for reading, and its size when it was opened. */
export interface ImageFile {
  readonly path: string
  readonly handle: FileHandle
  /** Bytes. */
  readonly size: number
}

/**
 * Reads `length` bytes at `offset`. Bytes past the end of the file read as zero: the last
 * cluster of an image may be cut short.
 * @throws BackupError IO, or SOURCE_CHANGED if the file has become shorter than it was
 */
export async function readAt(file: ImageFile, offset: number, length: number): Promise<Buffer> {
  return await readInto(Buffer.alloc(length), file, offset)
}

/** Like `readAt`, into the whole of an existing buffer; returns it. */
export async function readInto(buffer: Buffer, file: ImageFile, offset: number): Promise<Buffer> {
  const wanted = Math.max(0, Math.min(buffer.length, file.size - offset))
  if (wanted < buffer.length) buffer.fill(0, wanted)
  let done = 0
  while (done < wanted) {
    const { bytesRead } = await file.handle
      .read(buffer, done, wanted - done, offset + done)
      .catch((error) => {
        throw ioError(file.path, error)
      })
    if (bytesRead === 0) {
      throw new BackupError('SOURCE_CHANGED', file.path, 'became shorter while it was read')
    }
    done += bytesRead
  }
  return buffer
}

/** Bytes of a file that are read at least where small pieces are asked for one by one. */
const WINDOW = 4096

/** Reads pieces of a file that are small, and mostly where the one before was. */
export class FileWindow {
  readonly file: ImageFile
  #offset = 0
  #bytes: Buffer = Buffer.alloc(0)

  constructor(file: ImageFile) {
    this.file = file
  }

  /** As `readAt`. What it returns is not to be changed. */
  async read(offset: number, length: number): Promise<Buffer> {
    if (length > WINDOW) return await readAt(this.file, offset, length)
    const at = offset - this.#offset
    if (at >= 0 && at + length <= this.#bytes.length) return this.#bytes.subarray(at, at + length)
    this.#bytes = await readAt(this.file, offset, WINDOW)
    this.#offset = offset
    return this.#bytes.subarray(0, length)
  }
}
