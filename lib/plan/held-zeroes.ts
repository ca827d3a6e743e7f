import type { Range } from '../extents/range-set.ts'
import { roundDown, roundUp } from '../units.ts'
import { COLUMNS, ROW } from './rows.ts'

/**
 * Has ranges that are said to read as zero read all the same where the image that keeps the point in time
 * holds something of them. QEMU before 8.0 may be wrong there: of a range that the guest has zeroed since,
 * it tells the status that it has now, if it is asked for more than that range at once. The old content
 * was held before the guest's write, and so before the status was asked for.
 * @param rows in order; data is in store 0, at its guest offset
 * @param held in order, asked for after the status
 * @param zero the kind of row that stands for zeroes: skip where there is no backing file
 * @param granule in which the image holds something, bytes
 * @param size of store 0, bytes
 */
export function readHeldZeroes(
  rows: Float64Array,
  held: readonly Range[],
  zero: number,
  granule: number,
  size: number,
): Float64Array {
  const out: number[] = []
  const put = (kind: number, start: number, end: number) => {
    if (end > start) out.push(kind, start, end - start, 0, kind === ROW.data ? start : 0, 0, 0, 0)
  }
  let next = 0
  for (let at = 0; at < rows.length; at += COLUMNS) {
    const [kind, from, length] = rows.subarray(at, at + 3)
    if (kind !== zero) {
      for (let i = 0; i < COLUMNS; i++) out.push(rows[at + i])
      continue
    }
    const end = from + length
    let start = from
    while (next < held.length && roundUp(held[next].start + held[next].length, granule) <= start) {
      next++
    }
    for (let i = next; i < held.length && roundDown(held[i].start, granule) < end; i++) {
      const first = Math.max(start, roundDown(held[i].start, granule))
      const last = Math.min(end, size, roundUp(held[i].start + held[i].length, granule))
      if (last <= first) continue
      put(zero, start, first)
      put(ROW.data, first, last)
      start = last
    }
    put(zero, start, end)
  }
  return new Float64Array(out)
}
