import { slicePiece } from '../source/bitmaps/marked.ts'
import type { MarkedPiece, Piece } from '../source/source.ts'
import { roundUp } from '../units.ts'

/** A run that the backing file has as it is. */
export interface Clean {
  kind: 'clean'
  start: number
  length: number
}

/**
 * Fits what is dirty to the clusters of a target over a backing file. A cluster is in the target
 * wholly or not at all: one with any dirty byte is wholly dirty, so that the rest of it is filled
 * with what the disk holds there. Dirty too is all that lies past the end of the backing file: a
 * bitmap need not have it, because growing a disk writes nothing.
 * @param batches contiguous from 0
 * @param clusterSize of the target, bytes
 * @param backingSize virtual size of the backing file, bytes
 * @returns the same bytes; what is clean has lost where it is
 */
export async function* alignDirty(
  batches: AsyncIterable<readonly MarkedPiece[]>,
  clusterSize: number,
  backingSize: number,
): AsyncGenerator<(Piece | Clean)[]> {
  const aligner = new Aligner(clusterSize)
  for await (const batch of batches) {
    for (const piece of batch) {
      const end = piece.start + piece.length
      if (!piece.dirty && end > backingSize) {
        const inside = Math.max(0, backingSize - piece.start)
        if (inside > 0) aligner.addClean(slicePiece(piece, piece.start, inside))
        const start = piece.start + inside
        aligner.addDirty(slicePiece(piece, start, end - start))
      } else if (piece.dirty) {
        aligner.addDirty(piece)
      } else {
        aligner.addClean(piece)
      }
    }
    const out = aligner.take()
    if (out.length > 0) yield out
  }
  const last = aligner.end()
  if (last.length > 0) yield last
}

/** Of what is clean, keeps only the last cluster until it is known whether it stays so. */
class Aligner {
  readonly #clusterSize: number
  #out: (Piece | Clean)[] = []
  /** Up to here everything is dirty, because the last dirty byte's cluster is. */
  #dirtyTo = 0
  /** Clean pieces since the last border of a cluster, none of them dirty as yet. */
  #open: Piece[] = []

  constructor(clusterSize: number) {
    this.#clusterSize = clusterSize
  }

  addDirty(piece: Piece): void {
    if (this.#open.length > 0) {
      this.#out.push(...this.#open)
      this.#open = []
    }
    this.#out.push(piece)
    this.#dirtyTo = roundUp(piece.start + piece.length, this.#clusterSize)
  }

  addClean(piece: Piece): void {
    const end = piece.start + piece.length
    let start = piece.start
    if (start < this.#dirtyTo) {
      const to = Math.min(end, this.#dirtyTo)
      this.#out.push(slicePiece(piece, start, to - start))
      start = to
    }
    const border = Math.floor(end / this.#clusterSize) * this.#clusterSize
    if (border > start) {
      this.#pushClean(this.#open.length > 0 ? this.#open[0].start : start, border)
      if (this.#open.length > 0) this.#open = []
      start = border
    }
    if (start < end) this.#open.push(slicePiece(piece, start, end - start))
  }

  /** What is known by now. */
  take(): (Piece | Clean)[] {
    const out = this.#out
    this.#out = []
    return out
  }

  /** The same with what is left: the disk ends here, and so does its last cluster. */
  end(): (Piece | Clean)[] {
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
