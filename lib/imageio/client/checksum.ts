import { SCAN_PATIENCE } from './extent-list.ts'
import { Broken } from './failure.ts'
import type { ServedImage } from './image.ts'
import { jsonObject, smallAnswer } from './small-answer.ts'

/**
 * Has the server take the hash of the hashes of an image's blocks: blake2b of 32 bytes.
 * @param blockSize bytes
 * @returns in hexadecimal
 * @throws as ImageConnection.send; Broken
 */
export async function askChecksum(
  { connections, timeoutMs }: ServedImage,
  blockSize: number,
  signal?: AbortSignal,
): Promise<string> {
  const { body } = await connections.use((connection) =>
    smallAnswer(connection, {
      method: 'GET',
      target: `/checksum?algorithm=blake2b&block_size=${blockSize}`,
      // The disk is read for it.
      patienceMs: SCAN_PATIENCE * timeoutMs,
      signal,
    }),
  )
  const { algorithm, block_size: size, checksum } = jsonObject(body)
  if (algorithm !== 'blake2b' || size !== blockSize || typeof checksum !== 'string') {
    throw new Broken('the checksum is another one than was asked for')
  }
  if (/^[0-9a-f]{64}$/i.test(checksum)) return checksum.toLowerCase()
  throw new Broken('the checksum is not one of 32 bytes')
}
