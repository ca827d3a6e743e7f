import type { DirtyRun } from '../../format/qcow2/bits.ts'
import { BATCH } from '../layer.ts'
import type { MarkedPiece, Piece } from '../source.ts'
import { RunCursor } from './run-cursor.ts'

/** The part of a piece from `start` on, `length` bytes; it keeps where those bytes are. */
export function slicePiece(piece: Piece, start: number, length: number): Piece {
  const skipped = start - piece.start
  switch (piece.kind) {
    case 'zero':
    case 'hole':
      return { kind: piece.kind, start, length }
    case 'data': {
      const { kind, store, offset } = piece
      return { kind, start, length, store, offset: offset + skipped }
    }
    default:
      return { ...piece, start, length, within: piece.within + skipped }
  }
}

/**
 * Cuts pieces where a bitmap changes and says of each whether it is dirty. Both streams are
 * contiguous, from 0 to the same end; neither needs to know the other's borders.
 */
export async function* mark(
  batches: AsyncIterable<readonly Piece[]>,
  runs: AsyncIterable<readonly DirtyRun[]>,
): AsyncGenerator<readonly MarkedPiece[]> {
  const bitmap = new RunCursor(runs)
  try {
    for await (const batch of batches) {
      let out: MarkedPiece[] = []
      for (const piece of batch) {
        const end = piece.start + piece.length
        for (let at = piece.start; at < end; ) {
          const run = bitmap.at(at) ?? (await bitmap.read(at))
          if (!run) throw new Error(`the bitmap ends before offset ${at}`)
          const to = Math.min(end, run.start + run.length)
          // Not by spreading it, which takes six times as long, and there may be millions.
          out.push(Object.assign(slicePiece(piece, at, to - at), { dirty: run.dirty }))
          at = to
          if (out.length >= BATCH) {
            yield out
            out = []
          }
        }
      }
      if (out.length > 0) yield out
    }
  } finally {
    await bitmap.close()
  }
}
