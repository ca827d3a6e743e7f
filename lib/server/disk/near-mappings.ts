import type { Range } from '../../extents/range-set.ts'
import { sliceMapping } from '../../source/bitmaps/dirty-mappings.ts'
import type { Mapping } from '../../source/source.ts'

/**
 * Guest bytes whose mappings are kept together. Clients read small pieces that are near each other: with 20,000
 * of 64 KiB in 8 GiB, over four connections, a third of the processor time went to finding out anew where each of
 * them is.
 */
const WINDOW = 16 * 2 ** 20
/** Mappings of a window at most, and in all. */
const MOST_OF_WINDOW = 4096
const MOST = 16 * MOST_OF_WINDOW

/** Walks the guest in a range, as a new walk each time. */
type Walk = (range: Range) => AsyncIterable<readonly Mapping[]>

/** The mappings of small ranges, of which those that were asked for last are kept. */
export class NearMappings {
  readonly #size: number
  readonly #walk: Walk
  /** By index; undefined: too many to be kept. The one that was used last goes last. */
  readonly #windows = new Map<number, Promise<readonly Mapping[] | undefined>>()
  #count = 0

  /** @param size of the disk, bytes */
  constructor(size: number, walk: Walk) {
    this.#size = size
    this.#walk = walk
  }

  /** The mappings of a range, in batches. */
  async *of(range: Range): AsyncGenerator<readonly Mapping[]> {
    const end = range.start + range.length
    if (range.length > WINDOW) {
      yield* this.#walk(range)
      return
    }
    for (let at = range.start; at < end; ) {
      const index = Math.floor(at / WINDOW)
      const to = Math.min(end, (index + 1) * WINDOW)
      const known = await this.#window(index)
      if (known) yield within(known, at, to)
      else yield* this.#walk({ start: at, length: to - at })
      at = to
    }
  }

  #window(index: number): Promise<readonly Mapping[] | undefined> {
    let window = this.#windows.get(index)
    if (window) {
      this.#windows.delete(index)
    } else {
      window = this.#read(index)
      // A failure may pass.
      window.catch(() => this.#windows.delete(index))
    }
    this.#windows.set(index, window)
    return window
  }

  async #read(index: number): Promise<readonly Mapping[] | undefined> {
    const start = index * WINDOW
    const mappings: Mapping[] = []
    for await (const batch of this.#walk({ start, length: Math.min(WINDOW, this.#size - start) })) {
      mappings.push(...batch)
      if (mappings.length > MOST_OF_WINDOW) return undefined
    }
    this.#count += mappings.length
    if (this.#count > MOST) {
      // All of them, this one too: simpler than to know how many each has.
      this.#windows.clear()
      this.#count = 0
    }
    return mappings
  }
}

/** The parts of ordered mappings from `start` to `end`. */
function within(mappings: readonly Mapping[], start: number, end: number): Mapping[] {
  let low = 0
  let high = mappings.length
  while (low < high) {
    const middle = (low + high) >> 1
    const { start: from, length } = mappings[middle]
    if (from + length <= start) low = middle + 1
    else high = middle
  }
  const out: Mapping[] = []
  for (let i = low; i < mappings.length && mappings[i].start < end; i++) {
    const one = mappings[i]
    const from = Math.max(start, one.start)
    const to = Math.min(end, one.start + one.length)
    out.push(sliceMapping(one, from, to - from))
  }
  return out
}
