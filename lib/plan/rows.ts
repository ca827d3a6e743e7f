import type { Range } from '../extents/range-set.ts'
import { log } from '../log.ts'
import type { Mapping } from '../source/source.ts'
import type { CleanRange } from './align.ts'
import type { Action } from './policy.ts'

/** Kinds of rows as native/copy/row.h has them: do not change one without the other. */
export const ROW = { skip: 0, zero: 1, data: 2, deflate: 3, zstd: 4 } as const

/**
 * Added to the kind in rows of what an image of the chain holds itself; their store is the image's, also where
 * nothing is read.
 */
export const OWN_ROWS = 8

/** Numbers per row: kind, start, length, store, offset, size, clusterSize, within. */
export const COLUMNS = 8

/** The guest bytes that rows are about. */
export function areaOf(rows: Float64Array): Range {
  const start = rows[1]
  const last = rows.length - COLUMNS
  return { start, length: rows[last + 1] + rows[last + 2] - start }
}

/** An entry of the plan. */
type PlannedMapping = Mapping | CleanRange

/**
 * Packs mappings as the addon takes them: one array for many rows, so that the border is crossed
 * seldom. Neighbours that are skipped, or zero, become one row.
 * @param policy the decision for each kind of mapping
 */
export function packRows<P extends PlannedMapping>(
  mappings: readonly P[],
  policy: Readonly<Record<P['kind'], Action>>,
): Float64Array {
  const rows = new Float64Array(mappings.length * COLUMNS)
  let at = -COLUMNS
  let last: Action = 'copy'
  for (const mapping of mappings) {
    const action: Action = policy[mapping.kind as P['kind']]
    if (action !== 'copy' && action === last) {
      rows[at + 2] += mapping.length
      continue
    }
    last = action
    at += COLUMNS
    rows[at] = action === 'copy' ? fillSource(rows, at, mapping) : ROW[action]
    rows[at + 1] = mapping.start
    rows[at + 2] = mapping.length
  }
  const packed = rows.subarray(0, at + COLUMNS)
  log('plan', () => describeRows(packed))
  return packed
}

/** `from 0 to 65536: 1 data of 65536 bytes`. */
function describeRows(rows: Float64Array): string {
  const kinds = Object.entries(ROW).map(([name, kind]) => ({ name, kind, count: 0, bytes: 0 }))
  for (let at = 0; at < rows.length; at += COLUMNS) {
    const of = kinds.find(({ kind }) => kind === rows[at])!
    of.count++
    of.bytes += rows[at + 2]
  }
  const counted = kinds.filter(({ count }) => count > 0)
  const parts = counted.map(({ name, count, bytes }) => `${count} ${name} of ${bytes} bytes`)
  const { start, length } = rows.length > 0 ? areaOf(rows) : { start: 0, length: 0 }
  return `from ${start} to ${start + length}: ${parts.join(', ') || 'nothing'}`
}

/** Says where the bytes are; returns the kind of the row. */
function fillSource(rows: Float64Array, at: number, mapping: PlannedMapping): number {
  if (!('store' in mapping)) throw new Error(`a ${mapping.kind} run cannot be copied`)
  rows[at + 3] = mapping.store
  rows[at + 4] = mapping.offset
  if ('size' in mapping) {
    rows[at + 5] = mapping.size
    rows[at + 6] = mapping.clusterSize
    rows[at + 7] = mapping.within
  }
  return ROW[mapping.kind]
}
