/** Entries of the mapping and refcount tables as a check judges them: bit by bit. Pure. */
import { COMPRESSED_HIGH, COPIED_HIGH, hostOffset } from '../status/entries.ts'

/** Bits that must be 0, in the two halves of an entry. */
export const L1_RESERVED = [0x7f000000, 0x000001ff] as const
export const L2_RESERVED = [0x3f000000, 0x000001fe] as const
const ZERO_LOW = 1
/** Bits of the high half: the offset's, and those that a sound cluster with data never has. */
const OFFSET_HIGH = 0x00ffffff
const NOT_PLAIN_HIGH = 0x7f000000
const ALL = 0xffffffff

/** What a cluster is, subclusters left aside (`qcow2_get_cluster_type`). */
export type ClusterType = 'unallocated' | 'zero' | 'zero+host' | 'data' | 'compressed'

/** The type of the entry at byte `at` of an L2 table. */
export function clusterType(
  table: DataView,
  at: number,
  { extendedL2, externalDataFile }: { extendedL2: boolean; externalDataFile: boolean },
): ClusterType {
  const high = table.getUint32(at)
  if ((high & COMPRESSED_HIGH) !== 0) return 'compressed'
  const host = hostOffset(table, at)
  if (!extendedL2 && (table.getUint32(at + 4) & ZERO_LOW) !== 0) {
    return host === 0 ? 'zero' : 'zero+host'
  }
  // Offset 0 is a cluster like others in a data file; there only the flag tells.
  if (host !== 0 || (externalDataFile && (high & COPIED_HIGH) !== 0)) return 'data'
  return 'unallocated'
}

/**
 * The host offset of a standard entry that says nothing but where a cluster with data is, as nearly
 * all do; 0 of any other.
 */
export function plainHost(table: DataView, at: number, clusterSize: number): number {
  const high = table.getUint32(at)
  const low = table.getUint32(at + 4)
  if ((high & NOT_PLAIN_HIGH) !== 0 || (low & (clusterSize - 1)) !== 0) return 0
  return (high & OFFSET_HIGH) * 2 ** 32 + low
}

/**
 * How many of the `most` entries from byte `at` on are like the first one, each naming the cluster
 * behind the one before. A run that crosses 4 GiB is two.
 * REQUIRES: `plainHost` of the first one is not 0
 */
export function plainRun(table: DataView, at: number, most: number, clusterSize: number): number {
  const high = table.getUint32(at)
  const low = table.getUint32(at + 4)
  let run = 1
  while (
    run < most &&
    table.getUint32(at + run * 8 + 4) === low + run * clusterSize &&
    table.getUint32(at + run * 8) === high
  )
    run++
  return run
}

/** Whether a table entry has one of the bits of a mask. */
export function hasAny(
  table: DataView,
  at: number,
  [high, low]: readonly [number, number],
): boolean {
  return (table.getUint32(at) & high) !== 0 || (table.getUint32(at + 4) & low) !== 0
}

/** The subclusters of an extended entry that are zero, and those that are allocated. */
export function subclusters(table: DataView, at: number): { zeros: number; data: number } {
  return { zeros: table.getUint32(at + 8), data: table.getUint32(at + 12) }
}

/** An entry, whole, as messages show it. */
export function hexEntry(table: DataView, at: number): string {
  return table.getBigUint64(at).toString(16)
}

/** Turns an entry into one that reads as zero without a cluster behind it. */
export function makeZero(table: DataView, at: number, extendedL2: boolean): void {
  if (extendedL2) {
    const { zeros, data } = subclusters(table, at)
    table.setBigUint64(at, 0n)
    table.setUint32(at + 8, (zeros | data) & ALL)
    table.setUint32(at + 12, 0)
  } else {
    table.setBigUint64(at, BigInt(ZERO_LOW))
  }
}

export function isCopied(table: DataView, at: number): boolean {
  return (table.getUint32(at) & COPIED_HIGH) !== 0
}

export function setCopied(table: DataView, at: number, copied: boolean): void {
  const high = table.getUint32(at)
  table.setUint32(at, (copied ? high | COPIED_HIGH : high & ~COPIED_HIGH) >>> 0)
}
