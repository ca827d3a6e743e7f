import type { FileHandle } from '../files.ts'
import { writeAt } from '../format/write.ts'
import { log } from '../log.ts'

/** Bytes that go to a place in a file. */
export interface Write {
  /** Bytes from the start of the file. */
  offset: number
  bytes: Buffer
}

/** How an image is written to; tests put their own in place, which stop or fail. */
export interface ImageDisk {
  write(write: Write): Promise<void>
  /** Waits until all that was written is durable. */
  sync(): Promise<void>
}

export function diskOf(handle: FileHandle): ImageDisk {
  return {
    write: ({ offset, bytes }) => writeAt(handle, offset, bytes),
    sync: () => handle.datasync(),
  }
}

/**
 * Writes to an image in steps, each of which is durable before the next begins: an image whose edit
 * ends in between is that of the last step. This is the only way in which images are edited.
 */
export async function runSteps(
  disk: ImageDisk,
  steps: readonly (readonly Write[])[],
): Promise<void> {
  for (const step of steps) {
    if (step.length === 0) continue
    log('edit', () => {
      const bytes = step.reduce((sum, write) => sum + write.bytes.length, 0)
      return `a step of ${step.length} writes, ${bytes} bytes from ${step[0].offset} on, and a sync`
    })
    for (const write of step) await disk.write(write)
    await disk.sync()
  }
}
