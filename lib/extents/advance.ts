/** An answer about less than this many bytes of a disk, on the average, is absurd. */
const MIN_BYTES_PER_ANSWER = 64 * 2 ** 10
/** An answer of many runs may be about few bytes: a disk can be split that finely. */
const MIN_RUNS_PER_ANSWER = 16
/** Answers of which the average is taken. */
const ANSWERS = 1024

/** Minimum progress of a server within its timeout: 10 TiB would take most of a year. */
const MIN_BYTES_PER_TIMEOUT = 16 * 2 ** 20
const MIN_RUNS_PER_TIMEOUT = 1024

/**
 * Whether a server's answers about its disk get anywhere. The protocol allows answers of a byte
 * each, and a server that gives them in time would be asked for ever.
 */
export class Advance {
  readonly #timeoutMs: number
  #answers = { count: 0, bytes: 0, runs: 0 }
  #timed = { since: performance.now(), bytes: 0, runs: 0 }

  constructor(timeoutMs: number) {
    this.#timeoutMs = timeoutMs
  }

  /**
   * An answer that left more to be asked.
   * @param bytes that it was about
   * @returns whether it is worth while to go on asking
   */
  add(bytes: number, runs: number): boolean {
    const now = performance.now()
    const { count, ...sum } = this.#answers
    this.#answers = { count: count + 1, bytes: sum.bytes + bytes, runs: sum.runs + runs }
    const { since, ...timed } = this.#timed
    this.#timed = { since, bytes: timed.bytes + bytes, runs: timed.runs + runs }
    let enough = true
    if (this.#answers.count >= ANSWERS) {
      const { bytes, runs } = this.#answers
      enough = bytes >= ANSWERS * MIN_BYTES_PER_ANSWER || runs >= ANSWERS * MIN_RUNS_PER_ANSWER
      this.#answers = { count: 0, bytes: 0, runs: 0 }
    }
    if (now - since >= this.#timeoutMs) {
      const { bytes, runs } = this.#timed
      enough &&= bytes >= MIN_BYTES_PER_TIMEOUT || runs >= MIN_RUNS_PER_TIMEOUT
      this.#timed = { since: now, bytes: 0, runs: 0 }
    }
    return enough
  }
}
