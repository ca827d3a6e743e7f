import type { Progress } from '../progress.ts'
import { positions } from '../progress.ts'

/**
 * Passes on batches of runs of guest bytes, ordered and contiguous from 0, and reports progress.
 * @param size of the disk, bytes
 */
export async function* withProgress<T extends { start: number; length: number }>(
  batches: AsyncIterable<readonly T[]>,
  size: number,
  onProgress: ((progress: Progress) => void) | undefined,
): AsyncGenerator<readonly T[], void, undefined> {
  const tell = positions('map', size, onProgress)
  for await (const batch of batches) {
    const last = batch.at(-1)
    if (last) tell?.(last.start + last.length)
    yield batch
  }
  tell?.(size, true)
}
