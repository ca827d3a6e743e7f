import { seeded, shuffle } from './random.ts'

const BLOCK = 4096
const MIB = 2 ** 20
const SEED = 2

/** A run of data in a disk; between two of them lies a hole. Bytes, multiples of 4 KiB. */
export interface DataExtent {
  offset: number
  length: number
}

/** A disk as a used file system leaves it: many small files, most bytes in few large ones. */
export interface MixedDisk {
  /** Virtual size, bytes. */
  size: number
  /** Bytes of data in it. */
  dataBytes: number
  /** How many extents of 4 KiB to 1 MiB; the other data is in extents from there to `largest`. */
  smallExtents: number
  /** Bytes. */
  largest: number
}

/** A disk with equal blocks of data here and there. */
export interface ScatteredDisk {
  /** Virtual size, bytes. */
  size: number
  blocks: number
  /** Bytes of each. */
  blockSize: number
}

/**
 * Where the data of a mixed disk lies. Lengths are spread evenly over the orders of magnitude;
 * the holes share the rest, at random.
 */
export function mixedLayout(disk: MixedDisk): DataExtent[] {
  const random = seeded(SEED)
  const between = (least: number, most: number) =>
    Math.round((least * (most / least) ** random()) / BLOCK) * BLOCK

  const lengths = Array.from({ length: disk.smallExtents }, () => between(BLOCK, MIB))
  let left = disk.dataBytes - lengths.reduce((sum, length) => sum + length, 0)
  while (left > 0) {
    const length = Math.min(left, between(MIB, disk.largest))
    lengths.push(length)
    left -= length
  }
  shuffle(lengths, random)

  const weights = lengths.map(() => -Math.log(1 - random()))
  const weight = weights.reduce((sum, w) => sum + w, 0)
  // Each hole has its own first block, so the shared rest is smaller by one block a hole.
  const shared = (disk.size - disk.dataBytes) / BLOCK - lengths.length
  let offset = 0
  return lengths.map((length, i) => {
    offset += BLOCK * (1 + Math.floor((weights[i] / weight) * shared))
    const extent = { offset, length }
    offset += length
    return extent
  })
}

/**
 * Where the data of a scattered disk lies: each block somewhere in its own equal share.
 * @param seed another one for other places
 */
export function scatteredLayout(disk: ScatteredDisk, seed = SEED): DataExtent[] {
  const random = seeded(seed)
  const share = Math.floor(disk.size / disk.blocks / disk.blockSize)
  return Array.from({ length: disk.blocks }, (_, i) => ({
    offset: (i * share + Math.floor(random() * share)) * disk.blockSize,
    length: disk.blockSize,
  }))
}
