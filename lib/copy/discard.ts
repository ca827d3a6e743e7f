import type { Range } from '../extents/range-set.ts'
import { log } from '../log.ts'
import { type CopyJob, native } from '../native.ts'
import { COLUMNS, ROW } from '../plan/rows.ts'
import type { Discard } from '../source/source.ts'
import { roundDown, roundUp } from '../units.ts'

/** Interval between syncs that allow discarding the data copied so far. */
const STEP_MS = 1000

/**
 * Discards at the source what is not needed there: what the plan does not read, and the data that is
 * durable elsewhere. So the image that keeps the point in time (QEMU's fleecing image) shrinks during
 * the copy, and keeps nothing there any more.
 */
export class DiscardAfterCopy {
  readonly granule: number
  readonly #discard: Discard
  readonly #size: number
  /** Guest bytes from 0 on that were discarded, whole granules. */
  #done = 0
  /** Where what no row so far reads begins, up to the last row. */
  #unread = 0
  /** One after the other, in order. */
  #last: Promise<void> = Promise.resolve()
  #failure: unknown

  /**
   * @param granule areas are multiples of it, bytes, but for the end of the disk
   * @param size virtual size, bytes
   */
  constructor(discard: Discard, granule: number, size: number) {
    this.#discard = discard
    this.granule = granule
    this.#size = size
  }

  /** Why the source refused a discard; no more are sent then. */
  get failure(): unknown {
    return this.#failure
  }

  /** Syncs a running copy's target at intervals; returns a function that stops it. */
  watch(job: CopyJob): () => void {
    const timer = setInterval(() => native().copySync(job), STEP_MS)
    return () => clearInterval(timer)
  }

  /**
   * Discards what the plan does not read: it is recorded as zero, or left to the backing file.
   * @param rows those that follow on the last ones
   */
  planned(rows: Float64Array): void {
    const areas: Range[] = []
    for (let at = 0; at < rows.length; at += COLUMNS) {
      const end = rows[at + 1] + rows[at + 2]
      if (rows[at] >= ROW.data) {
        areas.push(...this.#inward(this.#unread, rows[at + 1]))
        this.#unread = end
      } else if (end === this.#size) {
        areas.push(...this.#inward(this.#unread, end))
      }
    }
    this.#send(areas, 'not needed')
  }

  /** Discards what was copied out of turn, whole granules. */
  taken(areas: readonly Range[]): void {
    this.#send(areas, 'copied first')
  }

  /**
   * Everything before `position` is durable.
   * @returns the area of which nothing must be read any more
   */
  upTo(position: number): Range {
    // The parts of it that were discarded already are discarded again, which costs less than sparing
    // them.
    const [area] = this.#inward(this.#done, position)
    if (!area || this.#failure) return { start: this.#done, length: 0 }
    this.#done += area.length
    this.#send([area], 'durable in the target')
    return area
  }

  /** Resolves when all that was to be discarded is, or was refused. */
  async settled(): Promise<void> {
    await this.#last
  }

  /** The whole target is durable under its name. */
  async finish(): Promise<void> {
    this.upTo(this.#size)
    await this.#last
  }

  /** The whole granules of a range, if any: the rest of a partial one is still needed. */
  #inward(from: number, to: number): Range[] {
    const start = roundUp(from, this.granule)
    const end = to === this.#size ? to : roundDown(to, this.granule)
    return end > start ? [{ start, length: end - start }] : []
  }

  #send(areas: readonly Range[], why: string): void {
    if (areas.length === 0 || this.#failure) return
    log('copy', () => {
      const [{ start }, last] = [areas[0], areas[areas.length - 1]]
      const bytes = areas.reduce((sum, { length }) => sum + length, 0)
      const where = `${bytes} bytes between ${start} and ${last.start + last.length}`
      return `discarding ${where}: ${why}`
    })
    this.#last = this.#last
      .then(() => (this.#failure ? undefined : this.#discard(areas)))
      .catch((error) => {
        this.#failure = error
        log('copy', () => `no more is discarded: ${(error as Error).message}`)
      })
  }
}
