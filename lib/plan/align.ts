import { sliceMapping } from '../source/bitmaps/dirty-mappings.ts'
import type { DirtyMapping, Mapping } from '../source/source.ts'
import { roundUp } from '../units.ts'

/** A run that the backing file has as it is. */
export interface CleanRange {
  kind: 'clean'
  start: number
  length: number
}

/**
 * Aligns dirty ranges to the clusters of a target over a backing file. A cluster is in the target
 * wholly or not at all: one with any dirty byte is wholly dirty, so that the rest of it is filled
 * with the disk's content there. Everything past the end of the backing file is dirty, too: a
 * bitmap need not have it, because growing a disk writes nothing.
 * @param batches contiguous from 0
 * @param clusterSize of the target, bytes
 * @param backingSize virtual size of the backing file, bytes
 * @returns the same bytes; clean ranges have lost their location
 */
export async function* alignDirty(
  batches: AsyncIterable<readonly DirtyMapping[]>,
  clusterSize: number,
  backingSize: number,
): AsyncGenerator<(Mapping | CleanRange)[]> {
  const aligner = new Aligner(clusterSize)
  for await (const batch of batches) {
    for (const mapping of batch) {
      const end = mapping.start + mapping.length
      if (!mapping.dirty && end > backingSize) {
        const inside = Math.max(0, backingSize - mapping.start)
        if (inside > 0) aligner.addClean(sliceMapping(mapping, mapping.start, inside))
        const start = mapping.start + inside
        aligner.addDirty(sliceMapping(mapping, start, end - start))
      } else if (mapping.dirty) {
        aligner.addDirty(mapping)
      } else {
        aligner.addClean(mapping)
      }
    }
    const out = aligner.take()
    if (out.length > 0) yield out
  }
  const last = aligner.end()
  if (last.length > 0) yield last
}

/** Of a clean run, keeps only the last cluster until it is known whether it stays clean. */
class Aligner {
  readonly #clusterSize: number
  #out: (Mapping | CleanRange)[] = []
  /** Up to here everything is dirty, because the last dirty byte's cluster is. */
  #dirtyTo = 0
  /** Clean mappings since the last border of a cluster, none of them dirty as yet. */
  #open: Mapping[] = []

  constructor(clusterSize: number) {
    this.#clusterSize = clusterSize
  }

  addDirty(mapping: Mapping): void {
    if (this.#open.length > 0) {
      this.#out.push(...this.#open)
      this.#open = []
    }
    this.#out.push(mapping)
    this.#dirtyTo = roundUp(mapping.start + mapping.length, this.#clusterSize)
  }

  addClean(mapping: Mapping): void {
    const end = mapping.start + mapping.length
    let start = mapping.start
    if (start < this.#dirtyTo) {
      const to = Math.min(end, this.#dirtyTo)
      this.#out.push(sliceMapping(mapping, start, to - start))
      start = to
    }
    const border = Math.floor(end / this.#clusterSize) * this.#clusterSize
    if (border > start) {
      this.#pushClean(this.#open.length > 0 ? this.#open[0].start : start, border)
      if (this.#open.length > 0) this.#open = []
      start = border
    }
    if (start < end) this.#open.push(sliceMapping(mapping, start, end - start))
  }

  /** Takes the changes so far. */
  take(): (Mapping | CleanRange)[] {
    const out = this.#out
    this.#out = []
    return out
  }

  /** Flushes the rest: the disk ends here, and so does its last cluster. */
  end(): (Mapping | CleanRange)[] {
    const last = this.#open.at(-1)
    if (last) this.#pushClean(this.#open[0].start, last.start + last.length)
    return this.take()
  }

  #pushClean(start: number, end: number): void {
    const last = this.#out.at(-1)
    if (last?.kind === 'clean') last.length += end - start
    else this.#out.push({ kind: 'clean', start, length: end - start })
  }
}
