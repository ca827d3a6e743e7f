import { BackupError } from '../errors.ts'
import { intersect } from '../extents/intersect.ts'
import { DIRTY_FLAG, type StatusWindow } from './block-status.ts'

/** Maximum runs kept: 32 MiB of them. */
export const MAX_KNOWN_RUNS = 4 * 2 ** 20
/** Runs of one window that is handed out. */
const WINDOW_RUNS = 8192

/** A run is one number: its length times eight, plus two flags of allocation and one of dirty. */
const FLAGS = 8
/** Longer ones are split: times eight it must be a whole number exactly. */
const MAX_RUN_BYTES = 2 ** 48

/** All that a server said of its export, kept in little room: neighbours of equal flags joined. */
export class KnownStatus {
  readonly #path: string
  readonly #max: number
  /** Of WINDOW_RUNS each, but for the last. */
  readonly #windows: { start: number; runs: Float64Array; count: number }[] = []
  #count = 0
  #end = 0
  #length = 0
  #flags = 0

  /** @param max maximum runs kept; for tests */
  constructor(path: string, max = MAX_KNOWN_RUNS) {
    this.#path = path
    this.#max = max
  }

  /**
   * Appends runs.
   * @throws BackupError UNSUPPORTED if it is split into more runs than are kept
   */
  add({ start, end, allocation, dirty }: StatusWindow): void {
    let at = start
    for (const { length: overlap, first, second } of intersect(allocation, dirty)) {
      const length = Math.min(overlap, end - at)
      if (length <= 0) break
      this.#run(length, ((first & 3) << 1) | (second & DIRTY_FLAG))
      at += length
    }
  }

  /** The runs added, in windows of bounded size. */
  *windows(): Generator<StatusWindow> {
    this.#store()
    for (const { start, runs, count } of this.#windows) {
      const allocation = new Float64Array(2 * count)
      const dirty = new Float64Array(2 * count)
      let end = start
      for (let i = 0; i < count; i++) {
        const flags = runs[i] % FLAGS
        const length = (runs[i] - flags) / FLAGS
        allocation.set([length, flags >> 1], 2 * i)
        dirty.set([length, flags & 1], 2 * i)
        end += length
      }
      yield { start, end, allocation, dirty }
    }
  }

  #run(length: number, flags: number): void {
    if (flags === this.#flags && this.#length + length <= MAX_RUN_BYTES) {
      this.#length += length
      return
    }
    this.#store()
    this.#flags = flags
    for (this.#length = length; this.#length > MAX_RUN_BYTES; ) {
      const rest = this.#length - MAX_RUN_BYTES
      this.#length = MAX_RUN_BYTES
      this.#store()
      this.#length = rest
    }
  }

  /** Puts down the run that no neighbour is joined to any more. */
  #store(): void {
    if (this.#length === 0) return
    if (this.#count >= this.#max) {
      const why =
        `its disk is split into more than ${this.#max} runs, too many to keep in memory, and ` +
        'the server accepts only one client; export it for several (qemu-nbd --shared=4)'
      throw new BackupError('UNSUPPORTED', this.#path, why)
    }
    let window = this.#windows[this.#windows.length - 1]
    if (!window || window.count === WINDOW_RUNS) {
      window = { start: this.#end, runs: new Float64Array(WINDOW_RUNS), count: 0 }
      this.#windows.push(window)
    }
    window.runs[window.count++] = this.#length * FLAGS + this.#flags
    this.#count++
    this.#end += this.#length
    this.#length = 0
  }
}
