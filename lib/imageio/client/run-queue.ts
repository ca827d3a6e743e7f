import type { ListedExtent } from './extent-parser.ts'

/** A run is one number: its length times eight, plus a flag for each of zero, hole and dirty. */
const FLAGS = 8
const ZERO = 1
const HOLE = 2
const DIRTY = 4
/** Longer ones are split: times eight it must be a whole number exactly. */
const MAX_RUN_BYTES = 2 ** 48

/** Extents on their way from a server to those who use them, in little room. */
export class RunQueue {
  readonly #batches: Float64Array[] = []
  #runs = 0
  /** Where the next extent that is taken out begins, bytes. */
  #position: number
  #isOver = false
  #wake: () => void = () => {}

  /** @param position bytes that are not of interest any more */
  constructor(position: number) {
    this.#position = position
  }

  /** Extents in it. */
  get runs(): number {
    return this.#runs
  }

  /** Bytes up to which extents were taken out. */
  get position(): number {
    return this.#position
  }

  /** Appends extents, of which those before `from` are left out. */
  add(extents: readonly ListedExtent[], from: number): void {
    const packed: number[] = []
    for (const { start, length, zero, hole, dirty } of extents) {
      const flags = (zero ? ZERO : 0) + (hole ? HOLE : 0) + (dirty ? DIRTY : 0)
      let left = start + length - Math.max(start, from)
      for (; left > MAX_RUN_BYTES; left -= MAX_RUN_BYTES) packed.push(MAX_RUN_BYTES * FLAGS + flags)
      if (left > 0) packed.push(left * FLAGS + flags)
    }
    if (packed.length === 0) return
    this.#batches.push(Float64Array.from(packed))
    this.#runs += packed.length
    this.#wake()
  }

  /** No more come. */
  end(): void {
    this.#isOver = true
    this.#wake()
  }

  /** Takes a batch out, when there is one; undefined if no more come. */
  async next(): Promise<ListedExtent[] | undefined> {
    while (this.#batches.length === 0) {
      if (this.#isOver) return undefined
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
    const batch = this.#batches.shift()!
    this.#runs -= batch.length
    return Array.from(batch, (run) => {
      const flags = run % FLAGS
      const length = (run - flags) / FLAGS
      const start = this.#position
      this.#position += length
      const [zero, hole, dirty] = [ZERO, HOLE, DIRTY].map((flag) => (flags & flag) !== 0)
      return { start, length, zero, hole, dirty }
    })
  }
}
