import { abortedError, ioError } from '../errors.ts'
import { encodeText } from '../text.ts'

/** The reader of stdout has closed it. */
export class OutputClosed extends Error {}

/**
 * Writes to stdout and waits until it is taken, so that a slow reader bounds the memory used.
 * @param signal ends the wait for a reader that does not read
 * @throws OutputClosed if the reader is gone; BackupError IO if stdout cannot be written, ABORTED
 */
export function print(text: string, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(abortedError('standard output', signal!))
    if (signal?.aborted) return abort()
    signal?.addEventListener('abort', abort, { once: true })
    process.stdout.write(encodeText(text), (error) => {
      signal?.removeEventListener('abort', abort)
      if (!error) resolve()
      else if ((error as NodeJS.ErrnoException).code === 'EPIPE') reject(new OutputClosed())
      else reject(ioError('standard output', error))
    })
  })
}
