import type { Content } from './content.ts'
import { Unreadable } from './disk-file.ts'
import { MOST, type Side, type Step } from './plan.ts'
import { type ContentReader, memoryFor } from './read.ts'

/** What ends a comparison. */
export type Finding =
  /** The first sector that differs starts at this guest offset, bytes. */
  | { kind: 'content'; start: number }
  /** Of this side the bytes from this guest offset on could not be read. */
  | { kind: 'unreadable'; start: number; side: Side; why: string }
  /** The status of the bytes from this guest offset on cannot be known. */
  | { kind: 'unknown'; start: number; side: Side; corruption?: string }
  /** Only in strict mode: the sizes, or the block status, differ. */
  | { kind: 'sizes' }
  | { kind: 'status'; start: number }

/** A step for which something has to be read. */
export type ReadStep = Extract<Step, { kind: 'compare' | 'empty' }>

const SECTOR = 512
const ZEROES = Buffer.alloc(MOST)

/** What a step reads. */
export function contentsOf(step: ReadStep): Content[] {
  return step.kind === 'compare' ? step.content : [step.content]
}

/**
 * Reads what a step says, and looks for a difference.
 * @param memory aligned, for all that it reads
 */
export async function examine(
  step: ReadStep,
  reader: ContentReader,
  memory: Buffer,
): Promise<Finding | undefined> {
  const { start } = step
  const found = await readStep(step, reader, memory)
  if ('why' in found) return { kind: 'unreadable', start, ...found }
  const at = firstDifference(...found.bytes)
  return at === undefined ? undefined : { kind: 'content', start: start + at }
}

/**
 * Reads what a step says: the bytes of both sides, or which side cannot be read, and why.
 * @param memory aligned, for all that it reads; the bytes may lie in it
 */
export async function readStep(
  step: ReadStep,
  reader: ContentReader,
  memory: Buffer,
): Promise<{ bytes: [Buffer, Buffer] } | { side: Side; why: string }> {
  const { length } = step
  let taken = 0
  const readOne = async (content: Content): Promise<Buffer> => {
    if (content.kind === 'zero') return ZEROES.subarray(0, length)
    const bytes = memoryFor(content, length)
    taken += bytes
    return await reader.read(content, length, memory.subarray(taken - bytes, taken))
  }
  // All have ended before the memory is used again.
  const ended = await Promise.allSettled(contentsOf(step).map(readOne))
  const read: Buffer[] = []
  for (const [index, side] of ended.entries()) {
    if (side.status === 'fulfilled') {
      read.push(side.value)
    } else {
      if (!(side.reason instanceof Unreadable)) throw side.reason
      const of = step.kind === 'compare' ? (index as Side) : step.side
      return { side: of, why: side.reason.message }
    }
  }
  return { bytes: [read[0], read[1] ?? ZEROES.subarray(0, length)] }
}

/** Where the first sector that differs starts, sectors being counted from the first byte. */
export function firstDifference(a: Buffer, b: Buffer): number | undefined {
  if (a.equals(b)) return undefined
  let at = 0
  while (a.subarray(at, at + SECTOR).equals(b.subarray(at, at + SECTOR))) at += SECTOR
  return at
}
