import type { Range } from '../extents/range-set.ts'
import { roundDown, roundUp } from '../units.ts'
import { COLUMNS, ROW } from './rows.ts'

/** Rows beyond which they are not cut any further: 32 MiB of them. */
const MAX_CUT = 2 ** 19
/** Rows that are handed out at a time at most. */
const MAX_TAKEN = 8192

/** The rows of a plan that are known, and not handed out yet: a stretch of the guest, in order. */
export class PlanAhead {
  /** The rows, from number #from to number #to of it. */
  #rows = new Float64Array(0)
  #from = 0
  #to = 0
  #start = 0
  #end = 0

  /** Rows. */
  get count(): number {
    return (this.#to - this.#from) / COLUMNS
  }

  /** They must not be cut any further. */
  get isFull(): boolean {
    return this.count >= MAX_CUT
  }

  /** Where the next row starts. */
  get start(): number {
    return this.#start
  }

  /** Where the last row ends. */
  get end(): number {
    return this.#end
  }

  /** Appends the rows that follow. */
  append(rows: Float64Array): void {
    if (rows.length === 0) return
    if (this.#to + rows.length > this.#rows.length) this.#grow(rows.length)
    this.#rows.set(rows, this.#to)
    this.#to += rows.length
    this.#end = endOf(this.#rows, this.#to - COLUMNS)
  }

  /**
   * Takes the first rows out: many, or as many as read that many bytes.
   * @param bytes above 0
   */
  take(bytes: number): Float64Array {
    let at = this.#from
    let left = bytes
    const most = Math.min(this.#to, at + MAX_TAKEN * COLUMNS)
    for (; at < most && left > 0; at += COLUMNS) {
      if (this.#rows[at] < ROW.data) continue
      // Part of a compressed cluster is not worth being cut.
      if (this.#rows[at + 2] > left && this.#rows[at] === ROW.data) break
      left -= this.#rows[at + 2]
    }
    const cut = at < most && left > 0
    const taken = this.#rows.slice(this.#from, cut ? at + COLUMNS : at)
    if (cut) {
      taken[taken.length - COLUMNS + 2] = left
      for (const column of [1, 4]) this.#rows[at + column] += left
      this.#rows[at + 2] -= left
    }
    this.#from = at
    this.#start = this.count > 0 ? this.#rows[at + 1] : this.#end
    return taken
  }

  /**
   * Finds what is worth being read first: whole granules in which there is something wanted, and
   * something that rows read from store 0.
   * @param wanted in order
   * @param most bytes found at most, but for one granule
   * @returns in order
   */
  findReads(wanted: readonly Range[], granule: number, most: number): Range[] {
    const found: Range[] = []
    const first = roundUp(this.#start, granule)
    const end = roundDown(this.#end, granule)
    let left = most
    let next = 0
    for (let at = this.#from; at < this.#to && left > 0; at += COLUMNS) {
      if (!isRead(this.#rows, at)) continue
      const from = Math.max(first, roundDown(this.#rows[at + 1], granule))
      const to = Math.min(end, roundUp(endOf(this.#rows, at), granule))
      while (next < wanted.length && wanted[next].start + wanted[next].length <= from) next++
      for (let i = next; i < wanted.length && wanted[i].start < to && left > 0; i++) {
        const last = found.at(-1)
        const since = last ? last.start + last.length : 0
        const start = Math.max(from, since, roundDown(wanted[i].start, granule))
        const stop = Math.min(to, roundUp(wanted[i].start + wanted[i].length, granule))
        const length = Math.min(stop - start, roundUp(left, granule))
        if (length <= 0) continue
        if (last && since === start) last.length += length
        else found.push({ start, length })
        left -= length
      }
    }
    return found
  }

  /**
   * Has what rows read from store 0 read from another one, at its guest offset.
   * @param ranges in order
   */
  redirect(ranges: readonly Range[], store: number): void {
    const more = 2 * ranges.length * COLUMNS
    const rows = new Float64Array(this.#to - this.#from + more)
    let to = 0
    let next = 0
    const put = (at: number, start: number, end: number, other: boolean) => {
      rows.set(this.#rows.subarray(at, at + COLUMNS), to)
      rows[to + 1] = start
      rows[to + 2] = end - start
      if (other) rows.set([store, start], to + 3)
      else rows[to + 4] += start - this.#rows[at + 1]
      to += COLUMNS
    }
    for (let at = this.#from; at < this.#to; at += COLUMNS) {
      const end = endOf(this.#rows, at)
      let start = this.#rows[at + 1]
      if (!isRead(this.#rows, at)) {
        put(at, start, end, false)
        continue
      }
      while (next < ranges.length && ranges[next].start + ranges[next].length <= start) next++
      for (let i = next; i < ranges.length && ranges[i].start < end; i++) {
        const stop = Math.min(end, ranges[i].start + ranges[i].length)
        if (ranges[i].start > start) put(at, start, ranges[i].start, false)
        start = Math.max(start, ranges[i].start)
        put(at, start, stop, true)
        start = stop
      }
      if (start < end) put(at, start, end, false)
    }
    this.#rows = rows
    this.#from = 0
    this.#to = to
  }

  #grow(length: number): void {
    const kept = this.#rows.subarray(this.#from, this.#to)
    this.#rows = new Float64Array(Math.max(2 * kept.length, kept.length + length))
    this.#rows.set(kept)
    this.#from = 0
    this.#to = kept.length
  }
}

function endOf(rows: Float64Array, at: number): number {
  return rows[at + 1] + rows[at + 2]
}

/** Whether it is read as it is from store 0. */
function isRead(rows: Float64Array, at: number): boolean {
  return rows[at] === ROW.data && rows[at + 3] === 0
}
