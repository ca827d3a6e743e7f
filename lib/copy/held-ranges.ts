import type { Range } from '../extents/range-set.ts'
import { readHeldZeroes } from '../plan/held-zeroes.ts'
import { COLUMNS } from '../plan/rows.ts'

/**
 * Tells which ranges' old content the image that keeps the point in time holds now, in order: all that the
 * guest has overwritten since, but for what was discarded.
 */
export type HeldRanges = () => Promise<readonly Range[]>

/** Rows after which is asked what is held, about: a question may take long. */
const MAX_ROWS = 2 ** 17

/**
 * Passes on a plan, in which zeroes are read all the same where something of them is held: see
 * `readHeldZeroes`. Where nobody knows what is held, all of them are read.
 * @param zero, granule, size as of readHeldZeroes
 */
export async function* withHeldZeroes(
  plan: AsyncIterable<Float64Array>,
  held: HeldRanges,
  ...[zero, granule, size]: [zero: number, granule: number, size: number]
): AsyncGenerator<Float64Array> {
  let batches: Float64Array[] = []
  let count = 0
  const checked = async () => {
    // After the status of all of them.
    const ranges = await held().catch(() => [{ start: 0, length: size }])
    const out = batches.map((rows) => readHeldZeroes(rows, ranges, zero, granule, size))
    batches = []
    count = 0
    return out
  }
  for await (const rows of plan) {
    batches.push(rows)
    count += rows.length / COLUMNS
    if (count >= MAX_ROWS) yield* await checked()
  }
  if (count > 0) yield* await checked()
}
