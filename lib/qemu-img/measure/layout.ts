/** How large a qcow2 image gets (`qcow2_calc_prealloc_size` in QEMU's block/qcow2.c). Pure. */

/** Parameters of an image's size, besides its content. */
export interface Qcow2Layout {
  /** Bytes. */
  clusterSize: bigint
  extendedL2: boolean
  refcountBits: bigint
}

/** Size of a bitmap. */
export interface MeasuredBitmap {
  /** UTF-8. */
  nameBytes: number
  /** Bytes per bit. */
  granularity: bigint
}

/** Bytes of an entry of the L1 and of the refcount table. */
const ENTRY = 8n
/** QEMU's limit, 32 MiB. */
const MAX_L1_BYTES = 2n ** 25n
/** Bytes of an entry of the bitmap directory before the name. */
const DIRECTORY_ENTRY = 24n

export function divideUp(n: bigint, by: bigint): bigint {
  return (n + by - 1n) / by
}

export function roundUp(n: bigint, unit: bigint): bigint {
  return divideUp(n, unit) * unit
}

function l2EntryBytes({ extendedL2 }: Qcow2Layout): bigint {
  return extendedL2 ? 16n : 8n
}

/** Whether the L1 table of a disk of `size` bytes is larger than QEMU allows. */
export function tooLarge(size: bigint, layout: Qcow2Layout): boolean {
  const { clusterSize } = layout
  const perTable = clusterSize / l2EntryBytes(layout)
  return divideUp(divideUp(size, clusterSize), perTable) * ENTRY > MAX_L1_BYTES
}

/** Bytes of an image of a disk of `size` bytes, all of which are stored. */
export function fullyAllocated(size: bigint, layout: Qcow2Layout): bigint {
  const { clusterSize } = layout
  const data = roundUp(size, clusterSize)
  const l2Entry = l2EntryBytes(layout)
  const l2 = roundUp(data / clusterSize, clusterSize / l2Entry) * l2Entry
  const l1 = roundUp(l2 / clusterSize, clusterSize / ENTRY) * ENTRY
  const counted = clusterSize + l2 + l1 + data
  return counted + refcountBytes(counted / clusterSize, layout)
}

/**
 * Bytes of the refcount table and blocks for `clusters` and for themselves: the fixed point
 * at which no more are needed.
 */
function refcountBytes(clusters: bigint, { clusterSize, refcountBits }: Qcow2Layout): bigint {
  const perBlock = (clusterSize * 8n) / refcountBits
  let table = 0n
  let blocks = 0n
  for (let last = -1n; table + blocks !== last; ) {
    last = table + blocks
    blocks = divideUp(clusters + last, perBlock)
    table = divideUp(blocks, clusterSize / ENTRY)
  }
  return (blocks + table) * clusterSize
}

/** Bytes that the bitmaps of a disk of `size` bytes take, all of their bits being stored. */
export function bitmapsBytes(
  bitmaps: readonly MeasuredBitmap[],
  size: bigint,
  { clusterSize }: Qcow2Layout,
): bigint {
  let total = 0n
  let directory = 0n
  for (const { nameBytes, granularity } of bitmaps) {
    const bits = roundUp(divideUp(divideUp(size, granularity), 8n), clusterSize)
    total += bits + roundUp((bits / clusterSize) * ENTRY, clusterSize)
    directory += roundUp(DIRECTORY_ENTRY + BigInt(nameBytes), 8n)
  }
  return total + roundUp(directory, clusterSize)
}
