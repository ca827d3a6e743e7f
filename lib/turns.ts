import { setImmediate as turn } from 'node:timers/promises'
import { throwIfAborted } from './errors.ts'

/** The longest that other work of the process waits, milliseconds. */
const LONGEST_MS = 10
/** Steps between two looks at the clock. */
const STEPS = 32

/**
 * Yields to the event loop now and then during work that never waits for anything, so that signals,
 * timers and sockets are served; and ends the work when its signal is aborted.
 */
export class Turns {
  readonly #what: string
  readonly #signal: AbortSignal | undefined
  #last = performance.now()
  #steps = 0

  /** @param what name of the work, for the error */
  constructor(what: string, signal?: AbortSignal) {
    this.#what = what
    this.#signal = signal
  }

  /**
   * To be called for each step; the caller awaits the promise it returns, if any.
   * @throws BackupError ABORTED
   */
  step(): Promise<void> | undefined {
    throwIfAborted(this.#signal, this.#what)
    this.#steps++
    if (this.#steps % STEPS !== 0 || performance.now() - this.#last < LONGEST_MS) return undefined
    return this.#turn()
  }

  async #turn(): Promise<void> {
    await turn()
    this.#last = performance.now()
    throwIfAborted(this.#signal, this.#what)
  }
}

/** Passes batches through, with a step for each. */
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
