import { open } from 'node:fs/promises'
import { succeed } from './process.ts'

const CLUSTER = 65536
/** Entries of an L2 table, refcounts of a block (of 16 bits). */
const PER_TABLE = CLUSTER / 8
const PER_BLOCK = CLUSTER / 2
/** OFLAG_COPIED: the refcount is 1. */
const COPIED = 1n << 63n
/** Where qemu-img puts the L1 table, the refcount table and a first block (a cluster's number). */
const L1 = 3 * CLUSTER
const REFCOUNT_TABLE = CLUSTER
const OLD_BLOCK = 2

/** An image of which only the tables count. */
export interface MappedDisk {
  /** Virtual size, bytes; a multiple of the range of an L2 table, 512 MiB. */
  size: number
  /** Allocated clusters in each L2 table, and how many of them lie together. */
  perTable: number
  run: number
}

/** Allocated clusters of the guest. */
export function mappedClusters({ size, perTable }: MappedDisk): number {
  return (size / (PER_TABLE * CLUSTER)) * perTable
}

/**
 * Makes a qcow2 image with many allocated clusters, whose content is a hole in the file: a program that looks
 * at tables cannot distinguish it from one that was written.
 */
export async function makeMapped(
  path: string,
  disk: MappedDisk,
  signal: AbortSignal,
): Promise<void> {
  const { size, perTable, run } = disk
  await succeed(['qemu-img', 'create', '-q', '-f', 'qcow2', path, String(size)], signal)
  const tables = size / (PER_TABLE * CLUSTER)
  const firstTable = L1 / CLUSTER + Math.ceil((tables * 8) / CLUSTER)
  const before = firstTable + tables
  // Refcounts for themselves too.
  let blocks = 1
  while (blocks * PER_BLOCK < before + blocks + tables * perTable) blocks++
  const firstData = before + blocks
  const total = firstData + tables * perTable

  const file = await open(path, 'r+')
  try {
    const entries = (from: number, count: number, flags: bigint) =>
      bigEndian(Array.from({ length: count }, (_, i) => BigInt((from + i) * CLUSTER) | flags))
    await file.write(entries(firstTable, tables, COPIED), 0, tables * 8, L1)
    await file.write(entries(before, blocks, 0n), 0, blocks * 8, REFCOUNT_TABLE)
    for (let table = 0; table < tables; table++) {
      signal.throwIfAborted()
      const bytes = Buffer.alloc(CLUSTER)
      const spread = PER_TABLE / (perTable / run)
      for (let i = 0; i < perTable; i++) {
        const index = Math.floor(i / run) * spread + (i % run)
        const cluster = firstData + table * perTable + i
        bytes.writeBigUInt64BE(BigInt(cluster * CLUSTER) | COPIED, index * 8)
      }
      await file.write(bytes, 0, CLUSTER, (firstTable + table) * CLUSTER)
    }
    for (let block = 0; block < blocks; block++) {
      const bytes = Buffer.alloc(CLUSTER)
      const used = Math.min(PER_BLOCK, total - block * PER_BLOCK)
      for (let i = 0; i < used; i++) bytes[i * 2 + 1] = 1
      // The block that the image had before is not used any more.
      if (block === 0) bytes[OLD_BLOCK * 2 + 1] = 0
      await file.write(bytes, 0, CLUSTER, (before + block) * CLUSTER)
    }
    await file.truncate(total * CLUSTER)
    await file.sync()
  } finally {
    await file.close()
  }
}

function bigEndian(values: bigint[]): Buffer {
  const bytes = Buffer.alloc(values.length * 8)
  for (const [i, value] of values.entries()) bytes.writeBigUInt64BE(value, i * 8)
  return bytes
}
