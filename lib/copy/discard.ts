import type { Range } from '../extents/range-set.ts'
import { log } from '../log.ts'
import { type CopyJob, native } from '../native.ts'
import type { Discard } from '../source/source.ts'

/** Interval between syncs that allow discarding the data copied so far. */
const STEP_MS = 1000

/**
 * Discards at the source the data that is durable in the target, so that the image that keeps the
 * point in time (QEMU's fleecing image) shrinks during the copy.
 */
export class DiscardAfterCopy {
  readonly #discard: Discard
  readonly #granule: number
  readonly #size: number
  /** Guest bytes from 0 on that were discarded, whole granules. */
  #done = 0
  /** One after the other, in order. */
  #last: Promise<void> = Promise.resolve()
  #failure: unknown

  /**
   * @param granule areas are multiples of it, bytes, but for the end of the disk
   * @param size virtual size, bytes
   */
  constructor(discard: Discard, granule: number, size: number) {
    this.#discard = discard
    this.#granule = granule
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
   * Everything before `position` is durable.
   * @returns the area of which nothing must be read any more
   */
  upTo(position: number): Range {
    // Round inward: the rest of a partial granule is still needed.
    const end = position === this.#size ? position : position - (position % this.#granule)
    const area = { start: this.#done, length: Math.max(0, end - this.#done) }
    if (area.length === 0 || this.#failure) return { ...area, length: 0 }
    this.#done = end
    log('copy', () => `discarding ${area.length} bytes at ${area.start}: durable in the target`)
    this.#last = this.#last
      .then(() => (this.#failure ? undefined : this.#discard(area.start, area.length)))
      .catch((error) => {
        this.#failure = error
        log('copy', () => `no more is discarded: ${(error as Error).message}`)
      })
    return area
  }

  /** The whole target is durable under its name. */
  async finish(): Promise<void> {
    this.upTo(this.#size)
    await this.#last
  }
}
