import type { FileHandle } from '../files.ts'

/**
 * Writes all of `bytes` at `offset`, however the kernel cuts it.
 * @throws errors of the system call
 */
export async function writeAt(
  handle: FileHandle,
  offset: number,
  bytes: Uint8Array,
): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const left = bytes.length - done
    done += (await handle.write(bytes, done, left, offset + done)).bytesWritten
  }
}
