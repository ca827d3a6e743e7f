import { ioError } from '../errors.ts'
import { encodeText } from '../text.ts'

/** Whoever read stdout has closed it. */
export class OutputClosed extends Error {}

/**
 * Writes to stdout and waits until it is taken, so that a slow reader bounds the memory used.
 * @throws OutputClosed if the reader is gone, BackupError IO if stdout cannot be written
 */
export function print(text: string): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(encodeText(text), (error) => {
      if (!error) resolve()
      else if ((error as NodeJS.ErrnoException).code === 'EPIPE') reject(new OutputClosed())
      else reject(ioError('standard output', error))
    })
  })
}
