import { SECTOR_SIZE } from '../format/qcow2/constants.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { tableEntry, unaligned } from '../format/qcow2/refcount-table.ts'
import { readAt } from '../format/read.ts'
import { roundUp } from '../units.ts'
import { type HostFile, StatusError } from './status.ts'

/**
 * Whether more clusters of an image are in use than the file system has given the file blocks for:
 * then data clusters may be holes, and QEMU looks for them (`qcow2_detect_metadata_preallocation`).
 * @param file the image itself, also where its data is in another file
 * @throws StatusError for a refcount block that cannot be where it is said to be
 */
export async function looksPreallocated(file: HostFile, header: Qcow2Header): Promise<boolean> {
  const { clusterSize, refcountOrder } = header
  const real = Math.floor(file.allocatedBytes / clusterSize)
  const threshold = Math.max(Math.floor((real * 10) / 9), real + 2)
  const clusters = Math.ceil(roundUp(file.size, SECTOR_SIZE) / clusterSize)
  const perBlock = (clusterSize * 8) / 2 ** refcountOrder
  const table = await readAt(
    file,
    header.refcountTableOffset,
    Math.min(Math.ceil(clusters / perBlock) * 8, header.refcountTableClusters * clusterSize),
  )
  let used = 0
  for (let index = 0; index * 8 < table.length && used < threshold; index++) {
    const { offset, aligned } = tableEntry(table, index, clusterSize)
    if (offset === 0) continue
    if (!aligned) throw new StatusError(unaligned(table, index))
    // Too few clusters for it to matter how many are in use.
    if (clusters < threshold) continue
    const entries = Math.min(perBlock, clusters - index * perBlock)
    used += countUsed(await readAt(file, offset, clusterSize), entries, 2 ** refcountOrder)
  }
  return used >= threshold
}

/** How many of the first `entries` refcounts of a block, each `bits` wide, are not 0. */
export function countUsed(block: Buffer, entries: number, bits: number): number {
  let used = 0
  if (bits < 8) {
    // The first entry of a byte is in its lowest bits.
    const mask = 2 ** bits - 1
    for (let i = 0; i < entries; i++) {
      if (((block[(i * bits) >> 3] >> ((i * bits) & 7)) & mask) !== 0) used++
    }
    return used
  }
  const bytes = bits / 8
  for (let i = 0; i < entries; i++) {
    for (let at = i * bytes; at < (i + 1) * bytes; at++) {
      if (block[at] === 0) continue
      used++
      break
    }
  }
  return used
}
