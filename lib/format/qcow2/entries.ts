/**
 * Entries of the mapping tables, bit by bit (spec: "Cluster mapping"). How a reader, a check, QEMU's
 * block status and an edit interpret them differs; the bits do not, and are defined only here.
 * Pure. An entry is read as two 32-bit halves, because BigInt would cost more than everything else
 * together.
 */
import type { Qcow2Header } from './header-fields.ts'

/** Bits 9 to 55 of an entry: the offset of a cluster. */
const OFFSET_HIGH = 0x00ffffff
const OFFSET_LOW = 0xfffffe00
/** Bit 63: the cluster's refcount is exactly one. */
const COPIED_HIGH = 0x80000000
/** The same of an entry that is encoded as a whole. */
export const COPIED = 1n << 63n
/** Bit 62. */
const COMPRESSED_HIGH = 0x40000000
/** Bit 0 of a standard L2 entry. */
const ZERO_LOW = 1
/** The same of an entry that is encoded as a whole. */
export const ZERO = 1n
/** Bits that must be 0, in the two halves of an entry. */
export const L1_RESERVED = [0x7f000000, 0x000001ff] as const
export const L2_RESERVED = [0x3f000000, 0x000001fe] as const
/** Bits of the high half that the entry of a sound cluster with data never has. */
const NOT_PLAIN_HIGH = 0x7f000000
/** Bits of an extended entry for all subclusters of a cluster. */
export const ALL_SUBCLUSTERS = 0xffffffff

/** Bytes of an L2 entry. */
export function l2EntrySize(layout: Pick<Qcow2Header, 'extendedL2'>): number {
  return layout.extendedL2 ? 16 : 8
}

/** The host offset in the entry at byte `at`, of an L1 or L2 table; 0 for none. */
export function hostOffset(table: DataView, at: number): number {
  return (
    (table.getUint32(at) & OFFSET_HIGH) * 2 ** 32 + ((table.getUint32(at + 4) & OFFSET_LOW) >>> 0)
  )
}

export function isCompressed(table: DataView, at: number): boolean {
  return (table.getUint32(at) & COMPRESSED_HIGH) !== 0
}

/** Whether a standard entry has the zero flag. REQUIRES: not compressed, not extended. */
export function isZeroFlagged(table: DataView, at: number): boolean {
  return (table.getUint32(at + 4) & ZERO_LOW) !== 0
}

/**
 * Where the stream of the compressed cluster in the entry at byte `at` is, bytes. The entry's low x
 * bits are the offset, the others but the two flags the number of sectors after the first, where
 * x = 62 − (clusterBits − 8).
 */
export function compressedRange(
  table: DataView,
  at: number,
  clusterBits: number,
): { offset: number; size: number } {
  const high = table.getUint32(at)
  const low = table.getUint32(at + 4)
  const split = 62 - (clusterBits - 8) - 32
  const sectors = ((high & 0x3fffffff) >>> split) + 1
  const offset = (high & (2 ** split - 1)) * 2 ** 32 + low
  return { offset, size: sectors * 512 - (low % 512) }
}

/**
 * How many of the next `most` entries equal the one at byte `at`. Tables of
 * zeroes, which all of a disk may share, are gone through ten times as fast by this.
 */
export function sameEntries(table: DataView, at: number, most: number): number {
  const high = table.getUint32(at)
  const low = table.getUint32(at + 4)
  const end = at + (most + 1) * 8
  let next = at + 8
  while (next < end && table.getUint32(next) === high && table.getUint32(next + 4) === low)
    next += 8
  return (next - at) / 8 - 1
}

/** Where the runs of equal entries of a table end, by the table. */
const RUN_ENDS = new WeakMap<DataView, Uint32Array>()

/**
 * Like `sameEntries`, for a table that does not change: it is scanned once, however many L1
 * entries name it.
 */
export function sameEntriesOnce(table: DataView, at: number, most: number): number {
  let ends = RUN_ENDS.get(table)
  if (!ends) {
    const entries = Math.floor(table.byteLength / 8)
    ends = new Uint32Array(entries)
    for (let first = 0; first < entries; ) {
      const end = first + 1 + sameEntries(table, first * 8, entries - first - 1)
      ends.fill(end, first, end)
      first = end
    }
    RUN_ENDS.set(table, ends)
  }
  return Math.min(ends[at / 8] - at / 8 - 1, most)
}

/** Type of a cluster, without subclusters (`qcow2_get_cluster_type`). */
export type ClusterType = 'unallocated' | 'zero' | 'zero+host' | 'data' | 'compressed'

/** The type of the entry at byte `at` of an L2 table. */
export function clusterType(
  table: DataView,
  at: number,
  { extendedL2, externalDataFile }: { extendedL2: boolean; externalDataFile: boolean },
): ClusterType {
  if (isCompressed(table, at)) return 'compressed'
  const host = hostOffset(table, at)
  if (!extendedL2 && isZeroFlagged(table, at)) {
    return host === 0 ? 'zero' : 'zero+host'
  }
  // In a data file offset 0 is a valid cluster; only the flag says whether it is used.
  if (host !== 0 || (externalDataFile && isCopied(table, at))) return 'data'
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
 * How many of the next `most` entries from byte `at` on continue the first one, each naming the cluster
 * after the one before. A run that crosses 4 GiB is two.
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

/** Turns an entry into a zero entry without a host cluster. */
export function makeZero(table: DataView, at: number, extendedL2: boolean): void {
  if (extendedL2) {
    const { zeros, data } = subclusters(table, at)
    table.setBigUint64(at, 0n)
    table.setUint32(at + 8, (zeros | data) >>> 0)
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
