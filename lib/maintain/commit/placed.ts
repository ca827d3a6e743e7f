/** Pieces by where in a file they go. Pure. */
import type { Area } from '../../extents/areas.ts'
import type { Piece } from '../../source/source.ts'
import { isZero } from './changes.ts'

/** In their order; what continues each other is one. */
export function joined(pieces: readonly Piece[]): Piece[] {
  const sorted = [...pieces].sort((a, b) => a.start - b.start)
  const all: Piece[] = []
  for (const piece of sorted) {
    const last = all.at(-1)
    if (last && continues(last, piece)) last.length += piece.length
    else all.push({ ...piece })
  }
  return all
}

function continues(last: Piece, next: Piece): boolean {
  if (last.start + last.length !== next.start) return false
  if (isZero(last)) return isZero(next)
  if (last.kind !== 'data' || next.kind !== 'data') return false
  return last.store === next.store && last.offset + last.length === next.offset
}

/**
 * Stretches of clusters that lie one behind the other.
 * @param clusters their numbers, in order
 * @param least bytes of the stretches that count
 */
export function stretches(clusters: readonly number[], clusterSize: number, least: number): Area[] {
  const all: Area[] = []
  for (const cluster of clusters) {
    const start = cluster * clusterSize
    const last = all.at(-1)
    if (last && last.start + last.length === start) last.length += clusterSize
    else all.push({ start, length: clusterSize })
  }
  return all.filter(({ length }) => length >= least)
}
