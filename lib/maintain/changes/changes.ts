import { sliceMapping } from '../../source/bitmaps/dirty-mappings.ts'
import type { Mapping } from '../../source/source.ts'

/**
 * A change of the content of an image that exists.
 * - `zero`: whole clusters, the last of which may end with the disk, will read as zero.
 * - `cluster`: the cluster at `start` gets `mappings`, in order; it keeps the rest.
 */
export type Change =
  | { kind: 'zero'; start: number; length: number }
  | { kind: 'cluster'; start: number; mappings: Mapping[] }

/** Guest bytes of mappings by kind. */
export class ByteCounter {
  dataBytes = 0
  zeroBytes = 0

  async *count<Some extends readonly Mapping[]>(
    batches: AsyncIterable<Some>,
  ): AsyncGenerator<Some> {
    for await (const mappings of batches) {
      for (const mapping of mappings) {
        if (isZero(mapping)) this.zeroBytes += mapping.length
        else this.dataBytes += mapping.length
      }
      yield mappings
    }
  }
}

/**
 * Aligns the changes to the clusters of the image.
 * @param clusterSize of the image, bytes
 * @param size of its disk when all is written, bytes
 */
export async function* changesOf(
  batches: AsyncIterable<readonly Mapping[]>,
  clusterSize: number,
  size: number,
): AsyncGenerator<Change[]> {
  const aligner = new ClusterAligner(clusterSize, size)
  for await (const batch of batches) {
    for (const mapping of batch) aligner.add(mapping)
    yield aligner.take()
  }
  yield aligner.end()
}

class ClusterAligner {
  readonly #clusterSize: number
  readonly #size: number
  #out: Change[] = []
  /** Clusters of zeroes, to which more may come. */
  #zero: Extract<Change, { kind: 'zero' }> | undefined
  /** Mappings of one cluster. */
  #mappings: Mapping[] = []

  constructor(clusterSize: number, size: number) {
    this.#clusterSize = clusterSize
    this.#size = size
  }

  add(mapping: Mapping): void {
    const end = mapping.start + mapping.length
    for (let start = mapping.start; start < end; ) {
      const cluster = this.#clusterOf(start)
      const clusterEnd = this.#endOf(cluster)
      if (this.#mappings.length > 0 && this.#clusterOf(this.#mappings[0].start) !== cluster) {
        this.#flush()
      }
      if (isZero(mapping) && start === cluster && end >= clusterEnd) {
        const to = end >= this.#size ? end : this.#clusterOf(end)
        this.#addZero(start, to)
        start = to
        continue
      }
      const to = Math.min(end, clusterEnd)
      this.#mappings.push(sliceMapping(mapping, start, to - start))
      if (to === clusterEnd) this.#flush()
      start = to
    }
  }

  /** Takes the changes so far. */
  take(): Change[] {
    const out = this.#out
    this.#out = []
    return out
  }

  end(): Change[] {
    this.#flush()
    if (this.#zero) this.#out.push(this.#zero)
    return this.take()
  }

  #flush(): void {
    const mappings = this.#mappings
    if (mappings.length === 0) return
    this.#mappings = []
    const start = this.#clusterOf(mappings[0].start)
    if (mappings.every(isZero) && covers(mappings, start, this.#endOf(start))) {
      this.#addZero(start, this.#endOf(start))
      return
    }
    this.#endZero()
    this.#out.push({ kind: 'cluster', start, mappings })
  }

  #addZero(start: number, end: number): void {
    if (this.#zero && this.#zero.start + this.#zero.length === start) {
      this.#zero.length += end - start
      return
    }
    this.#endZero()
    this.#zero = { kind: 'zero', start, length: end - start }
  }

  #endZero(): void {
    if (this.#zero) this.#out.push(this.#zero)
    this.#zero = undefined
  }

  #clusterOf(at: number): number {
    return at - (at % this.#clusterSize)
  }

  /** Where a cluster ends, or the disk in it. */
  #endOf(cluster: number): number {
    return Math.min(cluster + this.#clusterSize, this.#size)
  }
}

export function isZero({ kind }: Mapping): boolean {
  return kind === 'zero' || kind === 'hole'
}

/** Whether mappings, which do not overlap, are all of `start` to `end`. */
export function covers(mappings: readonly Mapping[], start: number, end: number): boolean {
  return mappings.reduce((bytes, { length }) => bytes + length, 0) === end - start
}
