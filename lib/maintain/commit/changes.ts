import { slicePiece } from '../../source/bitmaps/marked.ts'
import type { Layer, Open } from '../../source/layer.ts'
import { readOpen } from '../../source/layer.ts'
import type { Piece } from '../../source/source.ts'

/**
 * What a commit changes of its base.
 * - `zero`: whole clusters, the last of which may end with the disk, come to read as zero.
 * - `cluster`: the cluster at `start` comes to hold `pieces`, in order; it keeps the rest.
 */
export type Change =
  | { kind: 'zero'; start: number; length: number }
  | { kind: 'cluster'; start: number; pieces: Piece[] }

/**
 * Guest bytes that images above a base hold; what a short one of them lacks is zero.
 * @param baseSize bytes of the disk of the base
 */
export async function* heldPieces(
  overlays: readonly Layer[],
  baseSize: number,
): AsyncGenerator<Piece[]> {
  const { size } = overlays[0]
  for await (const batch of readOpen(overlays, { start: 0, length: size })) {
    yield batch.flatMap((item) => (item.kind === 'open' ? growth(item, baseSize) : [item]))
  }
}

/** Guest bytes of pieces by what they are. */
export class ByteCounter {
  dataBytes = 0
  zeroBytes = 0

  async *count(batches: AsyncIterable<Piece[]>): AsyncGenerator<Piece[]> {
    for await (const pieces of batches) {
      for (const piece of pieces) {
        if (isZero(piece)) this.zeroBytes += piece.length
        else this.dataBytes += piece.length
      }
      yield pieces
    }
  }
}

/** Past the end of the base nobody holds anything; when it has grown it must read as zero there. */
function growth({ start, length }: Open, baseSize: number): Piece[] {
  const end = start + length
  const from = Math.max(start, baseSize)
  return from < end ? [{ kind: 'hole', start: from, length: end - from }] : []
}

/**
 * Fits what is committed to the clusters of the base.
 * @param clusterSize of the base, bytes
 * @param size of its disk when all is committed, bytes
 */
export async function* changesOf(
  batches: AsyncIterable<readonly Piece[]>,
  clusterSize: number,
  size: number,
): AsyncGenerator<Change[]> {
  const aligner = new ClusterAligner(clusterSize, size)
  for await (const batch of batches) {
    for (const piece of batch) aligner.add(piece)
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
  /** Pieces of one cluster. */
  #pieces: Piece[] = []

  constructor(clusterSize: number, size: number) {
    this.#clusterSize = clusterSize
    this.#size = size
  }

  add(piece: Piece): void {
    const end = piece.start + piece.length
    for (let start = piece.start; start < end; ) {
      const cluster = this.#clusterOf(start)
      const clusterEnd = this.#endOf(cluster)
      if (this.#pieces.length > 0 && this.#clusterOf(this.#pieces[0].start) !== cluster) {
        this.#flush()
      }
      if (isZero(piece) && start === cluster && end >= clusterEnd) {
        const to = end >= this.#size ? end : this.#clusterOf(end)
        this.#addZero(start, to)
        start = to
        continue
      }
      const to = Math.min(end, clusterEnd)
      this.#pieces.push(slicePiece(piece, start, to - start))
      if (to === clusterEnd) this.#flush()
      start = to
    }
  }

  /** What is known by now. */
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
    const pieces = this.#pieces
    if (pieces.length === 0) return
    this.#pieces = []
    const start = this.#clusterOf(pieces[0].start)
    if (pieces.every(isZero) && covers(pieces, start, this.#endOf(start))) {
      this.#addZero(start, this.#endOf(start))
      return
    }
    this.#endZero()
    this.#out.push({ kind: 'cluster', start, pieces })
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

export function isZero({ kind }: Piece): boolean {
  return kind === 'zero' || kind === 'hole'
}

/** Whether pieces, which do not overlap, are all of `start` to `end`. */
export function covers(pieces: readonly Piece[], start: number, end: number): boolean {
  return pieces.reduce((bytes, { length }) => bytes + length, 0) === end - start
}
