import { setImmediate as turn } from 'node:timers/promises'
import { throwIfAborted } from './errors.ts'

/** The longest that other work of the process waits, milliseconds. */
const LONGEST_MS = 10
/** Time between two looks at the clock, about, milliseconds: a look takes as long as a small step. */
const LOOK_MS = 0.5
/** Maximum steps between two looks, of which the next ones may be longer. */
const MAX_STEPS = 64

/**
 * Yields to the event loop now and then during work that never waits for anything, so that signals,
 * timers and sockets are served; and ends the work when its signal is aborted.
 */
export class Turns {
  readonly #what: string
  readonly #signal: AbortSignal | undefined
  /** When it yielded last, and when it looked at the clock. */
  #last = performance.now()
  #looked = this.#last
  /** Steps since then, and how many there are to be before the next look. */
  #steps = 0
  #wanted = 1

  /** @param what name of the work, for the error */
  constructor(what: string, signal?: AbortSignal) {
    this.#what = what
    this.#signal = signal
  }

  /**
   * To be called for each step, be it short or as long as a few milliseconds; the caller awaits the
   * promise it returns, if any.
   * @throws BackupError ABORTED
   */
  step(): Promise<void> | undefined {
    throwIfAborted(this.#signal, this.#what)
    this.#steps++
    if (this.#steps < this.#wanted) return undefined
    const now = performance.now()
    this.#wanted = now - this.#looked < LOOK_MS ? Math.min(this.#wanted * 2, MAX_STEPS) : 1
    this.#looked = now
    this.#steps = 0
    return now - this.#last < LONGEST_MS ? undefined : this.#turn()
  }

  async #turn(): Promise<void> {
    await turn()
    this.#last = performance.now()
    this.#looked = this.#last
    throwIfAborted(this.#signal, this.#what)
  }
}

/** Passes batches, or items, through, with a step for each. */
export async function* withTurns<T>(
  batches: AsyncIterable<T>,
  what: string,
  signal?: AbortSignal,
): AsyncGenerator<T, void, undefined> {
  const turns = new Turns(what, signal)
  for await (const batch of batches) {
    const pause = turns.step()
    if (pause) await pause
    yield batch
  }
}
