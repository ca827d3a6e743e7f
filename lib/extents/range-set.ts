/** A run of guest bytes. */
export interface Range {
  /** Guest offset, bytes. */
  start: number
  /** Bytes. */
  length: number
}

/**
 * A set of guest bytes, as ordered areas that neither overlap nor touch. Iterating gives them in
 * order, and goes on after the last one given if the set is changed meanwhile. An empty area
 * changes nothing.
 *
 * A change costs time for the ranges after it in the set; large sets should grow at their end.
 */
export class RangeSet implements Iterable<Range> {
  /** Where the set begins (at even indexes) and ends (at odd ones), rising strictly. */
  readonly #edges: number[] = []

  get isEmpty(): boolean {
    return this.#edges.length === 0
  }

  /** Areas in the set. */
  get count(): number {
    return this.#edges.length / 2
  }

  /** Bytes in the set. */
  get bytes(): number {
    let bytes = 0
    for (let i = 0; i < this.#edges.length; i += 2) bytes += this.#edges[i + 1] - this.#edges[i]
    return bytes
  }

  add(area: Range): void {
    this.#assign(area, true)
  }

  /** @returns the parts of the area that were in the set, in order */
  remove(area: Range): Range[] {
    const removed = this.within(area)
    this.#assign(area, false)
    return removed
  }

  /** The parts of the area that are in the set, in order. */
  within({ start, length }: Range): Range[] {
    return [...this.#between(start, start + length)]
  }

  [Symbol.iterator](): Generator<Range> {
    return this.#between(0, Number.POSITIVE_INFINITY)
  }

  *#between(start: number, end: number): Generator<Range> {
    let at = start
    while (at < end) {
      const passed = this.#countUpTo(at)
      const begin = isInside(passed) ? passed - 1 : passed
      if (begin === this.#edges.length || this.#edges[begin] >= end) return
      const from = Math.max(this.#edges[begin], at)
      at = Math.min(this.#edges[begin + 1], end)
      yield { start: from, length: at - from }
    }
  }

  /** Puts the area in or out: its own edges replace all within, except where they change nothing. */
  #assign({ start, length }: Range, member: boolean): void {
    if (length <= 0) return
    const first = this.#countBelow(start)
    const last = this.#countUpTo(start + length)
    const edges: number[] = []
    if (isInside(first) !== member) edges.push(start)
    if (isInside(last) !== member) edges.push(start + length)
    this.#edges.splice(first, last - first, ...edges)
  }

  /** Edges below an offset. */
  #countBelow(offset: number): number {
    return this.#count((edge) => edge < offset)
  }

  /** Edges at or below an offset. */
  #countUpTo(offset: number): number {
    return this.#count((edge) => edge <= offset)
  }

  /** Number of leading edges for which `passed` is true. */
  #count(passed: (edge: number) => boolean): number {
    let low = 0
    let high = this.#edges.length
    while (low < high) {
      const middle = Math.floor((low + high) / 2)
      if (passed(this.#edges[middle])) low = middle + 1
      else high = middle
    }
    return low
  }
}

/** Whether the bytes after this number of edges are in the set. */
function isInside(edges: number): boolean {
  return edges % 2 === 1
}
