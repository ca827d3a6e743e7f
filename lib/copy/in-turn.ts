import { type CopyJob, native } from '../native.ts'
import { PlanAhead } from '../plan/ahead.ts'
import type { DiscardAfterCopy } from './discard.ts'
import type { HeldFirst } from './held-first.ts'

/**
 * What is handed out can no longer be copied first: so it is little, about what the copy needs for this
 * long. A copy is a few steps of it ahead.
 */
const STEP_SECONDS = 0.125
const MIN_STEP = 2 ** 20
const MAX_STEP = 32 * 2 ** 20
/** Rows that are known ahead, about: 16 MiB of them. */
const MAX_ROWS = 2 ** 18
/** The first bytes come in a burst, and are not the speed yet. */
const BURST_SECONDS = 0.5

/**
 * Hands out the rows of a plan in guest order, a little at a time. It is read ahead, as a rule to its
 * end, so that what is not read can be discarded at the source before anything is read there; and what
 * the source holds is copied first.
 */
export async function* planInTurn(
  plan: AsyncIterable<Float64Array>,
  job: CopyJob,
  discarding: DiscardAfterCopy,
  first?: HeldFirst,
): AsyncGenerator<Float64Array> {
  const ahead = new PlanAhead()
  const steps = new Steps(job)
  const batches = plan[Symbol.asyncIterator]()
  let isKnown = false
  try {
    for (;;) {
      const known = ahead.end
      while (!isKnown && ahead.count < MAX_ROWS) {
        const { done, value } = await batches.next()
        isKnown = done === true
        if (!value) break
        discarding.planned(value)
        ahead.append(value)
      }
      if (ahead.end > known) await discarding.settled()
      await first?.take(job, ahead)
      if (ahead.count === 0) return
      yield ahead.take(first ? steps.next() : Number.POSITIVE_INFINITY)
    }
  } finally {
    await batches.return?.()
  }
}

/** How many bytes a copy gets at a time. */
class Steps {
  readonly #job: CopyJob
  readonly #numbers = new Float64Array(2)
  readonly #started = performance.now()

  constructor(job: CopyJob) {
    this.#job = job
  }

  next(): number {
    native().copyProgress(this.#job, this.#numbers)
    const [, dataBytes] = this.#numbers
    const seconds = (performance.now() - this.#started) / 1000 + BURST_SECONDS
    const step = Math.round((dataBytes / seconds) * STEP_SECONDS)
    return Math.min(Math.max(step, MIN_STEP), MAX_STEP)
  }
}
