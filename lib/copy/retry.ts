import { setTimeout as delay } from 'node:timers/promises'
import type { Range } from '../extents/range-set.ts'
import { log } from '../log.ts'
import { type CopyJob, native } from '../native.ts'
import type { Tasks } from './tasks.ts'

/** The first wait before a failed area is read again; doubled each time. */
const FIRST_WAIT_MS = 100

/** Retries failed reads, a bounded number of times. */
export class Retries {
  readonly #job: CopyJob
  readonly #tasks: Tasks
  readonly #most: number
  /** How often areas failed, by where they start. */
  readonly #failures = new Map<number, number>()

  /** @param most maximum retries of a range */
  constructor(job: CopyJob, tasks: Tasks, most: number) {
    this.#job = job
    this.#tasks = tasks
    this.#most = most
  }

  /** @param failed pairs start, length, as copyEvents reports them */
  add(failed: Float64Array): void {
    for (let i = 0; i < failed.length; i += 2) {
      void this.#failed({ start: failed[i], length: failed[i + 1] })
    }
  }

  async #failed(area: Range): Promise<void> {
    this.#tasks.fail(area)
    const times = this.#failures.get(area.start) ?? 0
    log('copy', () => {
      const next =
        times >= this.#most ? 'given up' : `read again, ${times + 1} of ${this.#most} times`
      return `${area.length} bytes at ${area.start} cannot be read: ${next}`
    })
    if (times >= this.#most) {
      native().copyGiveUp(this.#job, area.start)
      return
    }
    this.#failures.set(area.start, times + 1)
    // Only while the copy runs, which holds the process.
    await delay(FIRST_WAIT_MS * 2 ** times, undefined, { ref: false })
    // Ranges discarded meanwhile must not be read again: their content is undefined.
    const [again] = this.#tasks.start(area)
    if (again?.start === area.start && again.length === area.length) {
      native().copyRetry(this.#job, area.start)
    } else {
      native().copyGiveUp(this.#job, area.start)
    }
  }
}
