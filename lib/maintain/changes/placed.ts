/** Mappings by where in a file they go. Pure. */
import type { Range } from '../../extents/range-set.ts'
import type { Mapping } from '../../source/source.ts'
import { isZero } from './changes.ts'

/** In order, with adjacent ones joined. */
export function joined(mappings: readonly Mapping[]): Mapping[] {
  const sorted = [...mappings].sort((a, b) => a.start - b.start)
  const all: Mapping[] = []
  for (const mapping of sorted) {
    const last = all.at(-1)
    if (last && continues(last, mapping)) last.length += mapping.length
    else all.push({ ...mapping })
  }
  return all
}

function continues(last: Mapping, next: Mapping): boolean {
  if (last.start + last.length !== next.start) return false
  if (isZero(last)) return isZero(next)
  if (last.kind !== 'data' || next.kind !== 'data') return false
  return last.store === next.store && last.offset + last.length === next.offset
}

/**
 * Runs of contiguous clusters.
 * @param clusters their numbers, in order
 * @param least minimum bytes of a range
 */
export function stretches(
  clusters: readonly number[],
  clusterSize: number,
  least: number,
): Range[] {
  const all: Range[] = []
  for (const cluster of clusters) {
    const start = cluster * clusterSize
    const last = all.at(-1)
    if (last && last.start + last.length === start) last.length += clusterSize
    else all.push({ start, length: clusterSize })
  }
  return all.filter(({ length }) => length >= least)
}
