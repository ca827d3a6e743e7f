/**
 * L2 entries as QEMU's block status sees them (spec: "Cluster mapping"; QEMU's qcow2.h and
 * qcow2-cluster.c). Other than `decodeL2`, which reads an image, this judges as leniently as QEMU
 * and keeps host offsets of clusters that hold nothing.
 */
import { SUBCLUSTERS } from '../format/qcow2/constants.ts'
import {
  hostOffset,
  isCompressed,
  isCopied,
  isZeroFlagged,
  l2EntrySize,
  sameEntriesOnce,
  subclusters,
} from '../format/qcow2/entries.ts'
import type { TableLayout } from '../format/qcow2/tables.ts'

/** `+host`: a host cluster is allocated for it. */
export type SubclusterType =
  | 'unallocated'
  | 'unallocated+host'
  | 'zero'
  | 'zero+host'
  | 'data'
  | 'compressed'
  | 'invalid'

/** Whether a host cluster belongs to clusters of this type, so that neighbours must continue it. */
export function hasHost(type: SubclusterType): boolean {
  return type === 'data' || type === 'zero+host' || type === 'unallocated+host'
}

/** The type of subcluster `n` (0 without extended L2) of the entry at byte `at`. */
export function subclusterType(
  table: DataView,
  at: number,
  n: number,
  layout: TableLayout,
): SubclusterType {
  if (isCompressed(table, at)) return 'compressed'
  const offset = hostOffset(table, at)
  // In a data file offset 0 is a valid cluster; only the flag says whether it is used.
  const host = offset !== 0 || (layout.externalDataFile && isCopied(table, at))
  if (!layout.extendedL2) {
    // A zero cluster has a host cluster only where the entry has an offset.
    if (isZeroFlagged(table, at)) return offset !== 0 ? 'zero+host' : 'zero'
    return host ? 'data' : 'unallocated'
  }
  const { zeros, data } = subclusters(table, at)
  if ((zeros & data) !== 0 || (data !== 0 && !host)) return 'invalid'
  if (((zeros >>> n) & 1) !== 0) return host ? 'zero+host' : 'zero'
  if (((data >>> n) & 1) !== 0) return 'data'
  return host ? 'unallocated+host' : 'unallocated'
}

/** Subclusters from `first` on that are of its type. REQUIRES: extended L2, not compressed. */
function sameSubclusters(table: DataView, at: number, first: number, type: SubclusterType): number {
  const { zeros, data } = subclusters(table, at)
  let other: number
  if (type === 'data') other = ~data
  else if (type === 'zero' || type === 'zero+host') other = ~zeros
  else other = zeros | data
  // The lowest set bit at or above `first`.
  const above = (other >>> first) >>> 0
  return above === 0 ? SUBCLUSTERS - first : 31 - Math.clz32(above & -above)
}

/** How many subclusters have one status, or where an entry in between is invalid. */
export type Contiguous = { subclusters: number } | { invalid: number }

/**
 * Subclusters from `first` of entry `index` on, of at most `entries` entries, that have the same
 * type and, where a host cluster belongs to it, follow each other in the file.
 */
export function contiguousSubclusters(
  table: DataView,
  index: number,
  first: number,
  entries: number,
  layout: TableLayout,
): Contiguous {
  const perCluster = layout.extendedL2 ? SUBCLUSTERS : 1
  const entrySize = l2EntrySize(layout)
  let type: SubclusterType = 'invalid'
  let next = 0
  let count = 0
  for (let i = 0; i < entries; i++) {
    const at = (index + i) * entrySize
    const from = i === 0 ? first : 0
    const here = subclusterType(table, at, from, layout)
    if (here === 'invalid') return { invalid: index + i }
    const host = hostOffset(table, at)
    if (i === 0) {
      type = here
      next = host
      if (type === 'compressed') return { subclusters: perCluster - first }
    } else if (here !== type || (hasHost(type) && host !== next)) {
      break
    }
    next += layout.clusterSize
    const same = layout.extendedL2 ? sameSubclusters(table, at, from, here) : perCluster - from
    count += same
    if (from + same < perCluster) break
    if (i === 0 && !layout.extendedL2 && !hasHost(type)) {
      const alike = sameEntriesOnce(table, at, entries - 1)
      count += alike
      i += alike
    }
  }
  return { subclusters: count }
}
