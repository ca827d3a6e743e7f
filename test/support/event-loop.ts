/** How long work keeps the event loop from turning, however busy the machine is. */
import { closeSync, openSync, readSync } from 'node:fs'

/**
 * The most processor time that the main thread took between two turns of the event loop while some
 * work went on, milliseconds. Other programs do not count, however busy the machine is; the kernel updates
 * it at its ticks, of which there are 100 to 1000 a second.
 */
export async function longestStretch(work: () => Promise<unknown>): Promise<number> {
  const clock = new ThreadClock()
  let longest = 0
  let last = clock.now()
  const look = () => {
    const now = clock.now()
    longest = Math.max(longest, now - last)
    last = now
  }
  const timer = setInterval(look, 1)
  try {
    await work()
    // What ends it may be long, too.
    await new Promise(setImmediate)
    look()
    return longest
  } finally {
    clearInterval(timer)
    clock.close()
  }
}

/** Processor time of the main thread. */
class ThreadClock {
  readonly #file = openSync(`/proc/self/task/${process.pid}/schedstat`, 'r')
  readonly #bytes = Buffer.alloc(64)

  /** Milliseconds. */
  now(): number {
    const length = readSync(this.#file, this.#bytes, 0, this.#bytes.length, 0)
    const [nanoseconds] = this.#bytes.toString('latin1', 0, length).split(' ')
    return Number(nanoseconds) / 1e6
  }

  close(): void {
    closeSync(this.#file)
  }
}
