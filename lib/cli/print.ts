import { setTimeout as delay } from 'node:timers/promises'
import { abortedError, BackupError, ioError } from '../errors.ts'
import { writeOpen } from '../files.ts'
import { encodeText } from '../text.ts'

/** The descriptor of stdout. */
export const STDOUT = 1
const NAME = 'standard output'
/** Before stdout is asked again that takes nothing now. */
const PAUSE_MS = 10

/** The reader of stdout has closed it. */
export class OutputClosed extends Error {}

/**
 * Writes to stdout and waits until it is taken, so that a slow reader bounds the memory used.
 * @param signal ends the wait for a reader that does not read
 * @throws OutputClosed if the reader is gone; BackupError IO if stdout cannot be written, ABORTED
 */
export function print(text: string, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(abortedError(NAME, signal!))
    if (signal?.aborted) return abort()
    signal?.addEventListener('abort', abort, { once: true })
    process.stdout.write(encodeText(text), (error) => {
      signal?.removeEventListener('abort', abort)
      if (!error) resolve()
      else if ((error as NodeJS.ErrnoException).code === 'EPIPE') reject(new OutputClosed())
      else reject(ioError(NAME, error))
    })
  })
}

/**
 * Writes bytes to stdout. Unlike process.stdout, which blocks, a thread waits for the reader: signals are
 * obeyed meanwhile.
 * @throws BackupError IO
 */
export async function printBytes(bytes: Uint8Array): Promise<void> {
  for (let left = bytes; left.length > 0; ) {
    try {
      left = left.subarray(await writeOpen(STDOUT, left))
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code === 'EPIPE') {
        const options = { cause: error, errno: code }
        throw new BackupError('IO', NAME, 'was closed by its reader', options)
      }
      // Somebody else made the pipe non-blocking.
      if (code !== 'EAGAIN') throw ioError(NAME, error)
      await delay(PAUSE_MS)
    }
  }
}
