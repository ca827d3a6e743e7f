import { BackupError } from '../errors.ts'
import { coveredBytes, intersect, type StatusRuns } from '../extents/intersect.ts'
import type { SourceExport } from './export.ts'

/** Flags of the contexts (NBD protocol, "Metadata querying"; QEMU's docs/interop/nbd.txt). */
export const ZERO_FLAG = 2
export const HOLE_FLAG = 1
export const DIRTY_FLAG = 1

/**
 * Bytes asked about at a time, of which the addon makes requests of 32 bits. An answer takes the
 * server's time mostly by the number of its runs, and it stops when there are many.
 */
const STEP = 2 ** 40

/** The export, and the alignment of requests to it. */
export type AskedExport = Pick<SourceExport, 'path' | 'blockMin'>

/** Asks for the status of a range: the runs of some contexts from `start` on. */
export type AskStatus = (start: number, length: number) => Promise<StatusRuns[]>

/** Known status of a range of an export; the runs may end after it. */
export interface StatusWindow {
  start: number
  end: number
  /** Of base:allocation. */
  allocation: StatusRuns
  /** Of the dirty bitmap. */
  dirty: StatusRuns
}

/** A stretch in which every context that was asked for is known. */
export interface Answer {
  start: number
  end: number
  contexts: StatusRuns[]
}

/** Runs of a context that says the same everywhere. */
export function sameRuns(length: number, flags: number): StatusRuns {
  return Float64Array.of(length, flags)
}

/**
 * Asks about a range piece by piece, the next one while the last is being used. Each answer counts
 * as far as all its contexts go; the rest is asked again.
 * @throws BackupError IO if an answer says nothing; whatever `ask` throws
 */
export async function* statusAnswers(
  { path, blockMin }: AskedExport,
  ask: AskStatus,
  from: number,
  to: number,
): AsyncGenerator<Answer> {
  const askFrom = (start: number) => {
    const answer = ask(start, Math.min(STEP, to - start))
    // It may never be awaited.
    answer.catch(() => undefined)
    return answer
  }
  if (from >= to) return
  let asked = askFrom(from)
  for (let start = from; start < to; ) {
    const contexts = await asked
    const known = start + Math.min(...contexts.map(coveredBytes))
    // Servers may align their answers less strictly than they require of requests.
    const end = known >= to ? to : known - (known % blockMin)
    if (!(end > start)) {
      const why = `the server's answer about the bytes at ${start} is empty`
      throw new BackupError('IO', path, why)
    }
    if (end < to) asked = askFrom(end)
    yield { start, end, contexts }
    start = end
  }
}

/**
 * Asks about a bitmap first, and about allocation only inside dirty ranges; clean ranges count
 * as data. For exports that can say nothing of clean ranges, and cannot be read there either.
 * @param allocation undefined if the server does not have base:allocation: all is data then
 */
export async function* statusOfDirty(
  asked: AskedExport,
  bitmap: AskStatus,
  allocation: AskStatus | undefined,
  from: number,
  to: number,
): AsyncGenerator<StatusWindow> {
  for await (const answer of statusAnswers(asked, bitmap, from, to)) {
    const { start, end } = answer
    const [dirty] = answer.contexts
    const found: number[] = []
    let at = start
    for (const run of intersect(dirty, sameRuns(end - start, 0))) {
      if ((run.first & DIRTY_FLAG) === 0 || !allocation) {
        found.push(run.length, 0)
      } else {
        for await (const inner of statusAnswers(asked, allocation, at, at + run.length)) {
          const known = sameRuns(inner.end - inner.start, 0)
          for (const { length, first } of intersect(inner.contexts[0], known)) {
            found.push(length, first)
          }
        }
      }
      at += run.length
    }
    yield { start, end, allocation: Float64Array.from(found), dirty }
  }
}
