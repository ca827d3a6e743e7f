import type { ImageConnection, ImageRequest } from './connection.ts'
import { Broken, type Head } from './failure.ts'

/** The longest answer of a few facts, bytes. */
const MAX_BYTES = 65536

/**
 * Sends a request whose answer is short.
 * @returns the body
 * @throws as ImageConnection.send; Broken if it is long
 */
export async function smallAnswer(
  connection: ImageConnection,
  request: ImageRequest,
): Promise<Head & { body: Buffer }> {
  const chunks: Buffer[] = []
  let bytes = 0
  const head = await connection.send({
    ...request,
    onData(chunk) {
      bytes += chunk.length
      if (bytes > MAX_BYTES) throw new Broken(`an answer of more than ${MAX_BYTES} bytes`)
      chunks.push(chunk)
    },
  })
  return { ...head, body: Buffer.concat(chunks) }
}

/**
 * As smallAnswer, of JSON.
 * @throws Broken if it is not a JSON object
 */
export function jsonObject(body: Buffer): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(body.toString('utf8'))
  } catch {
    throw new Broken('the answer is not JSON')
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>
  }
  throw new Broken('the answer is not a JSON object')
}
