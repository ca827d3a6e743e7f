/** L2 entries as a commit changes them (spec: "Cluster mapping"). Pure. */

import {
  ALL_SUBCLUSTERS,
  COPIED,
  clusterType,
  compressedRange,
  hostOffset,
  isCopied,
  subclusters,
  ZERO,
} from '../format/qcow2/entries.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'

/** An image's content of a cluster. */
export interface Entry {
  /** `mixed`: subclusters of several kinds. */
  kind: 'unallocated' | 'zero' | 'data' | 'mixed' | 'compressed'
  /** Host clusters that belong to it: bytes of the image; none if `size` is 0. */
  host: number
  size: number
  /** Nothing else refers to the host cluster. */
  copied: boolean
}

/** The entry at byte `at` of an L2 table. */
export function readEntry(
  table: DataView,
  at: number,
  header: Pick<Qcow2Header, 'clusterBits' | 'clusterSize' | 'extendedL2' | 'externalDataFile'>,
): Entry {
  const { clusterBits, clusterSize, extendedL2 } = header
  const copied = isCopied(table, at)
  const type = clusterType(table, at, header)
  if (type === 'compressed') {
    const { offset, size } = compressedRange(table, at, clusterBits)
    return { kind: 'compressed', host: offset, size, copied: false }
  }
  const host = hostOffset(table, at)
  const size = host === 0 ? 0 : clusterSize
  if (extendedL2) return { kind: kindOf(subclusters(table, at)), host, size, copied }
  const kind = type === 'zero+host' ? 'zero' : type
  return { kind, host, size, copied }
}

/** Whether data for a cluster has to go to another host cluster than the one that it may have. */
export function takesNewCluster({ kind, size, copied }: Entry): boolean {
  // The host cluster of a zero or unallocated entry is not visible.
  return !(copied && size > 0 && (kind === 'data' || kind === 'zero' || kind === 'unallocated'))
}

function kindOf({ zeros, data }: { zeros: number; data: number }): Entry['kind'] {
  if (data === ALL_SUBCLUSTERS) return 'data'
  if (zeros === ALL_SUBCLUSTERS) return 'zero'
  return (zeros | data) === 0 ? 'unallocated' : 'mixed'
}

/** Makes an entry one of a cluster with data, at a host offset to which nothing else refers. */
export function writeData(table: DataView, at: number, host: number, extendedL2: boolean): void {
  table.setBigUint64(at, BigInt(host) | COPIED)
  if (extendedL2) writeSubclusters(table, at, 0, ALL_SUBCLUSTERS)
}

/** Makes an entry one of a cluster that reads as zero, also over a backing file. */
export function writeZero(table: DataView, at: number, extendedL2: boolean): void {
  table.setBigUint64(at, extendedL2 ? 0n : ZERO)
  if (extendedL2) writeSubclusters(table, at, ALL_SUBCLUSTERS, 0)
}

/** Makes an entry one of a cluster that is left to the backing file. */
export function writeUnallocated(table: DataView, at: number, extendedL2: boolean): void {
  table.setBigUint64(at, 0n)
  if (extendedL2) writeSubclusters(table, at, 0, 0)
}

function writeSubclusters(table: DataView, at: number, zeros: number, data: number): void {
  table.setUint32(at + 8, zeros)
  table.setUint32(at + 12, data)
}
