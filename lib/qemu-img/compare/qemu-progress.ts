/** Percent between two lines. */
const STEP = 2

/**
 * The progress of `compare -p` as QEMU prints it: rewrites one line, at most every 2 percent. Its
 * numbers are floats of 32 bits, so are ours.
 */
export class QemuProgress {
  #current = 0
  #last = 0

  /** The output before the work begins. */
  start(): string {
    return this.#show()
  }

  /**
   * Adds the share that `bytes` are of `total`.
   * @returns the output then, if any
   */
  add(bytes: number, total: number): string {
    const share = Math.fround(Math.fround(bytes) / Math.fround(total))
    const percent = Math.fround(share * 100)
    const added = Math.fround(Math.fround(percent / 100) * 100)
    this.#current = Math.min(Math.fround(this.#current + added), 100)
    const told = this.#current > this.#last + STEP || this.#current === 100 || this.#current === 0
    return told ? this.#show() : ''
  }

  #show(): string {
    this.#last = this.#current
    return `    (${hundredths(this.#current)}/100%)\r`
  }
}

/** As C prints it: exactly half a hundredth goes to the even side, where `toFixed` goes up. */
function hundredths(percent: number): string {
  const all = percent * 100
  const whole = Math.floor(all)
  const up = all - whole > 0.5 || (all - whole === 0.5 && whole % 2 === 1)
  return ((whole + (up ? 1 : 0)) / 100).toFixed(2)
}
