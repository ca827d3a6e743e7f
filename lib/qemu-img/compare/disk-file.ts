import { read } from 'node:fs'
import { constants, descriptorPath, type FileHandle, open } from '../../files.ts'
import type { HostFile } from '../block-status/status.ts'
import { ALIGNMENT, aligned } from './ring.ts'

/** Bytes could not be read; the message is the system's for the error. */
export class Unreadable extends Error {}

const MESSAGES: Record<string, string> = {
  EIO: 'Input/output error',
  EACCES: 'Permission denied',
  ENOMEM: 'Cannot allocate memory',
}
export const IO_ERROR = MESSAGES.EIO

/** Memory that such a read needs, bytes: it starts and ends at aligned places. */
export function memoryToRead(offset: number, length: number): number {
  return aligned((offset % ALIGNMENT) + length)
}

/**
 * A file that is read past the page cache where its file system allows it: large files that are
 * read once cost the processor a tenth, and other programs keep what they have in the cache.
 */
export class DiskFile {
  readonly #file: HostFile
  #direct: FileHandle | undefined

  private constructor(file: HostFile, direct: FileHandle | undefined) {
    this.#file = file
    this.#direct = direct
  }

  /** @param direct false: through the page cache */
  static async open(file: HostFile, direct: boolean): Promise<DiskFile> {
    if (!direct) return new DiskFile(file, undefined)
    // The open file, not whatever now has its name.
    const flags = constants.O_RDONLY | constants.O_DIRECT
    const handle = await open(descriptorPath(file.handle), flags).catch(() => undefined)
    return new DiskFile(file, handle)
  }

  /**
   * Reads bytes; those past the end of the file are zero.
   * @param memory aligned, of `memoryToRead(offset, length)` bytes
   * @returns the bytes, somewhere in `memory`
   * @throws Unreadable
   */
  async read(offset: number, length: number, memory: Buffer): Promise<Buffer> {
    const before = offset % ALIGNMENT
    const wanted = Math.max(0, Math.min(before + length, this.#file.size - offset + before))
    let done = 0
    while (done < wanted) {
      const bytes = await this.#readSome(memory, done, wanted, offset - before)
      if (bytes === 0) break
      done += bytes
    }
    const end = before + length
    if (done < end) memory.fill(0, done, end)
    return memory.subarray(before, end)
  }

  async close(): Promise<void> {
    await this.#direct?.close()
  }

  /** Reads from byte `done` of `start` on, what there is of `wanted` bytes. */
  async #readSome(memory: Buffer, done: number, wanted: number, start: number): Promise<number> {
    // After a short read, which ends at no aligned place, only the page cache will do.
    if (this.#direct && done % ALIGNMENT === 0) {
      try {
        return await readOnce(this.#direct.fd, memory, done, aligned(wanted - done), start + done)
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EINVAL') throw unreadable(error)
      }
    }
    return await readOnce(this.#file.handle.fd, memory, done, wanted - done, start + done).catch(
      (error) => {
        throw unreadable(error)
      },
    )
  }
}

function unreadable(error: unknown): Unreadable {
  const { code = '', message } = error as NodeJS.ErrnoException
  return new Unreadable(MESSAGES[code] ?? message, { cause: error })
}

/** With a callback, which costs a third of what the promise of a FileHandle costs. */
function readOnce(
  fd: number,
  into: Buffer,
  at: number,
  length: number,
  position: number,
): Promise<number> {
  return new Promise((resolve, reject) => {
    read(fd, into, at, length, position, (error, bytes) => {
      if (error) reject(error)
      else resolve(bytes)
    })
  })
}
