import zlib from 'node:zlib'
import { unsupported } from '../../format/qcow2/fields.ts'
import type { Stream } from '../block-status/status.ts'

/**
 * Expands a compressed cluster. As for QEMU, all that counts is that the stream yields the whole
 * cluster: it may go on, or be followed by anything.
 * @param stored the bytes of `stream`
 * @param path of the file, for messages
 * @returns undefined if they do not yield a cluster
 * @throws BackupError UNSUPPORTED for zstd
 */
export async function expand(
  stored: Uint8Array,
  { method, clusterSize }: Stream,
  path: string,
): Promise<Buffer | undefined> {
  if (method === 'zstd') {
    throw unsupported(path, 'has clusters compressed with zstd, which cannot be compared')
  }
  return await inflated(stored, clusterSize)
}

/** The first `length` bytes of a raw deflate stream, if it has as many. */
function inflated(stored: Uint8Array, length: number): Promise<Buffer | undefined> {
  const options = { chunkSize: length, finishFlush: zlib.constants.Z_SYNC_FLUSH }
  return new Promise((resolve) => {
    const stream = zlib.createInflateRaw(options)
    stream.on('data', (chunk: Buffer) => {
      // Chunks are full, but for the last.
      resolve(chunk.length === length ? chunk : undefined)
      stream.destroy()
    })
    stream.on('error', () => resolve(undefined))
    stream.on('close', () => resolve(undefined))
    stream.end(stored)
  })
}
