import type { Piece } from '../source/source.ts'
import type { Action } from './policy.ts'

/** Kinds of rows as native/copy/row.h has them: do not change one without the other. */
export const ROW = { skip: 0, zero: 1, data: 2, deflate: 3, zstd: 4 } as const

/** Numbers per row: kind, start, length, file, offset, size, clusterSize, within. */
export const COLUMNS = 8

/**
 * Packs pieces as the addon takes them: one array for many rows, so that the border is crossed
 * seldom. Neighbouring skipped rows become one.
 * @param policy what becomes of each kind of piece
 */
export function packRows(
  pieces: readonly Piece[],
  policy: Readonly<Record<Piece['kind'], Action>>,
): Float64Array {
  const rows = new Float64Array(pieces.length * COLUMNS)
  let at = -COLUMNS
  let skipping = false
  for (const piece of pieces) {
    const skip = policy[piece.kind] === 'skip'
    if (skip && skipping) {
      rows[at + 2] += piece.length
      continue
    }
    skipping = skip
    at += COLUMNS
    rows[at + 1] = piece.start
    rows[at + 2] = piece.length
    if (skip) rows[at] = ROW.skip
    else fillSource(rows, at, piece)
  }
  return rows.subarray(0, at + COLUMNS)
}

function fillSource(rows: Float64Array, at: number, piece: Piece): void {
  if (!('file' in piece)) {
    rows[at] = ROW.zero
    return
  }
  rows[at] = ROW[piece.kind]
  rows[at + 3] = piece.file
  rows[at + 4] = piece.offset
  if (!('size' in piece)) return
  rows[at + 5] = piece.size
  rows[at + 6] = piece.clusterSize
  rows[at + 7] = piece.within
}
