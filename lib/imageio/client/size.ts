import type { ImageConnection } from './connection.ts'
import { Broken, type Head, Refusal } from './failure.ts'
import { smallAnswer } from './small-answer.ts'

/** Bytes, such that offsets of whole sectors are exact. */
const MAX_SIZE = 2 ** 53 - 512

const OF_PART = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)$/
const OF_NONE = /^bytes \*\/(\d{1,16})$/

/** What an answer with a part of the image says about it; bytes. */
export interface Part {
  start: number
  end: number
  /** Of all that the ticket is for; undefined if the server does not tell. */
  total?: number
}

/**
 * Reads the head of an answer to a request with a range.
 * @throws Broken if it is not an answer to that
 */
export function partOf({ status, headers }: Head): Part {
  if (status === 200) throw new Broken('the server does not heed the range that it is asked for')
  const parts = OF_PART.exec(headers['content-range'] ?? '')
  if (status !== 206 || !parts) throw new Broken('the answer does not say which part it is')
  const [start, last, total] = parts.slice(1).map(Number)
  return { start, end: last + 1, ...(!Number.isNaN(total) && { total }) }
}

/**
 * Finds out how large an image is, without a list of its extents: the server tells the size that the
 * ticket allows with each part, and refuses a part beyond the end with the size that there is.
 * @returns bytes
 * @throws as ImageConnection.send; Broken
 */
export async function askSize(connection: ImageConnection, signal?: AbortSignal): Promise<number> {
  const total = await askAt(connection, 0, signal)
  if (total === 'all') return await askLength(connection, signal)
  if (total > MAX_SIZE) throw new Broken('the image is larger than 8 PiB')
  if (total === 0) return 0
  // The ticket may allow for more than there is.
  const last = await askAt(connection, total - 1, signal)
  const size = last === 'all' ? total : Math.min(total, last)
  return size
}

/** Asks for a byte; the size that the answer tells of, or all of it where it tells nothing. */
async function askAt(
  connection: ImageConnection,
  offset: number,
  signal?: AbortSignal,
): Promise<number | 'all'> {
  const headers = { range: `bytes=${offset}-${offset}` }
  try {
    const answer = await smallAnswer(connection, {
      method: 'GET',
      headers,
      signal,
      onHead(head) {
        const { start, end } = partOf(head)
        if (start !== offset || end !== offset + 1) throw new Broken('the answer is another part')
      },
    })
    if (answer.body.length !== 1) throw new Broken('the answer is longer or shorter than it says')
    return partOf(answer).total ?? 'all'
  } catch (error) {
    const range = error instanceof Refusal && error.status === 416 && error.headers['content-range']
    const size = OF_NONE.exec(range || '')?.[1]
    if (size === undefined) throw error
    return Number(size)
  }
}

/** Asks for all of it, and reads no more than how much that is. */
async function askLength(connection: ImageConnection, signal?: AbortSignal): Promise<number> {
  class Enough extends Error {}
  let length: string | undefined
  try {
    await connection.send({
      method: 'GET',
      signal,
      onHead({ headers }) {
        length = headers['content-length']
        throw new Enough()
      },
    })
  } catch (error) {
    if (!(error instanceof Enough)) throw error
  }
  if (length !== undefined && /^\d{1,16}$/.test(length) && Number(length) <= MAX_SIZE) {
    return Number(length)
  }
  throw new Broken('the server does not tell how large the image is')
}
