import { COLUMNS, ROW } from '../plan/rows.ts'

/** Neighbouring clusters of a planned image that are recorded in the same way. */
export interface ClusterRun {
  /** Stored, or recorded as zero. */
  kind: 'data' | 'zero'
  /** Guest clusters: the first, and the one after the last. */
  first: number
  end: number
}

/** Numbers of a run: its first cluster; the one after its last, negative where they are zero. */
const PER_RUN = 2
const FIRST_RUNS = 1024

/**
 * Which clusters of an image are recorded, in guest order: 16 bytes a run, so that ten million scattered
 * extents are 160 MB. A cluster of which anything is data is data.
 */
export class ClusterRuns {
  readonly #clusterSize: number
  #numbers = new Float64Array(FIRST_RUNS * PER_RUN)
  #length = 0

  /** @param clusterSize bytes */
  constructor(clusterSize: number) {
    this.#clusterSize = clusterSize
  }

  /** Adds the next rows of a plan, see plan/rows.ts. */
  add(rows: Float64Array): void {
    for (let at = 0; at < rows.length; at += COLUMNS) {
      const [kind, start, length] = rows.subarray(at, at + 3)
      if (kind === ROW.skip || length === 0) continue
      const first = Math.floor(start / this.#clusterSize)
      const end = Math.ceil((start + length) / this.#clusterSize)
      this.#append(kind === ROW.zero ? 'zero' : 'data', first, end)
    }
  }

  *[Symbol.iterator](): Generator<ClusterRun> {
    for (let at = 0; at < this.#length; at += PER_RUN) yield this.#at(at)
  }

  #at(at: number): ClusterRun {
    const end = this.#numbers[at + 1]
    return { kind: end < 0 ? 'zero' : 'data', first: this.#numbers[at], end: Math.abs(end) }
  }

  #append(kind: ClusterRun['kind'], first: number, end: number): void {
    const last = this.#length > 0 ? this.#at(this.#length - PER_RUN) : undefined
    let from = first
    if (last && last.end > first) {
      // A cluster of both rows: data wins.
      if (kind === 'zero' || last.kind === 'data') from = last.end
      else this.#shorten(last, first)
    }
    if (from >= end) return
    const before = this.#length > 0 ? this.#at(this.#length - PER_RUN) : undefined
    if (before?.kind === kind && before.end === from) this.#length -= PER_RUN
    this.#push(kind, before?.kind === kind && before.end === from ? before.first : from, end)
  }

  /** @param last the last run, which ends before cluster `end` now */
  #shorten(last: ClusterRun, end: number): void {
    this.#length -= PER_RUN
    if (end > last.first) this.#push(last.kind, last.first, end)
  }

  #push(kind: ClusterRun['kind'], first: number, end: number): void {
    if (this.#length === this.#numbers.length) {
      const more = new Float64Array(2 * this.#length)
      more.set(this.#numbers)
      this.#numbers = more
    }
    this.#numbers[this.#length] = first
    this.#numbers[this.#length + 1] = kind === 'zero' ? -end : end
    this.#length += PER_RUN
  }
}
