/** A run of guest bytes, `start` and `length` in bytes, all of which a bitmap has as written or not. */
export interface DirtyRun {
  start: number
  length: number
  dirty: boolean
}

/**
 * Makes runs of the bits of a bitmap (spec: "Bitmap data"), lowest bit of each byte first. Bits that
 * lie past the end of the disk may be anything. Pure; only runs not yet taken are in
 * memory.
 */
export class BitRuns {
  readonly #granularity: number
  readonly #size: number
  /** The guest offset of the next bit. */
  #position = 0
  /** The run that goes on. */
  #start = 0
  #dirty = false
  #runs: DirtyRun[] = []

  /**
   * @param granularity bytes per bit
   * @param size of the disk, bytes
   */
  constructor(granularity: number, size: number) {
    this.#granularity = granularity
    this.#size = size
  }

  /** How many runs `take` would hand out. */
  get ready(): number {
    return this.#runs.length
  }

  addBits(bytes: Uint8Array): void {
    const meant = Math.ceil((this.#size - this.#position) / this.#granularity)
    const bits = Math.max(0, Math.min(bytes.length * 8, meant))
    for (let bit = 0; bit < bits; ) {
      const byte = bytes[bit >> 3]
      // Most words of a bitmap repeat.
      if ((bit & 7) === 0 && byte === (this.#dirty ? 0xff : 0)) {
        bit += 8
      } else {
        const dirty = ((byte >> (bit & 7)) & 1) !== 0
        if (dirty !== this.#dirty) this.#turn(this.#position + bit * this.#granularity)
        bit++
      }
    }
    this.#position += bits * this.#granularity
  }

  /** Adds `bits` bits, at most 2^40, of one kind. */
  addSame(dirty: boolean, bits: number): void {
    if (this.#position >= this.#size) return
    if (dirty !== this.#dirty) this.#turn(this.#position)
    this.#position += bits * this.#granularity
  }

  /** The runs that are complete and were not taken. */
  take(): DirtyRun[] {
    const runs = this.#runs
    this.#runs = []
    return runs
  }

  /** Takes the runs including the last one, after all bits were added. */
  end(): DirtyRun[] {
    this.#turn(this.#size)
    return this.take()
  }

  /** The run ends at `at`; one of the other kind begins. */
  #turn(at: number): void {
    const length = at - this.#start
    if (length > 0) this.#runs.push({ start: this.#start, length, dirty: this.#dirty })
    this.#start = at
    this.#dirty = !this.#dirty
  }
}
