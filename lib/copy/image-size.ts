import type { Extent } from '../extents/extent.ts'
import { ENTRY, refcountClusters } from '../format/qcow2/new-layout.ts'
import { planImage } from '../plan/plan.ts'
import { COLUMNS, ROW } from '../plan/rows.ts'
import type { Disk } from '../source/source.ts'
import type { Compression, Qcow2Format, RecordedBacking } from './spec.ts'

/** Parameters of a new image's size, besides its content. */
export interface ImageLayout extends Pick<Qcow2Format, 'clusterBits'> {
  backing?: Pick<RecordedBacking, 'size'>
}

/** By the kinds of rows. */
const COMPRESSION: Record<number, Compression['type']> = {
  [ROW.deflate]: 'zlib',
  [ROW.zstd]: 'zstd',
}

/** Bytes of an image in which every cluster of a disk is stored: the maximum. */
export function fullImageBytes(size: number, { clusterBits }: ImageLayout): number {
  const clusterSize = 2 ** clusterBits
  const tables = Math.ceil(size / (clusterSize ** 2 / ENTRY))
  return imageBytes(size, Math.ceil(size / clusterSize), tables, clusterSize)
}

/**
 * Upper bound of the size of a new image of a disk, from metadata only: as if
 * nothing could be compressed or turned out to be zero.
 * @returns bytes
 * @throws BackupError as the mappings of the disk
 */
export async function plannedImageBytes(source: Disk, layout: ImageLayout): Promise<number> {
  return (await surveyPlan(source, layout)).bytes
}

/** What is known of a copy before it is made. */
export interface Survey {
  /** See `plannedImageBytes`. */
  bytes: number
  /** Stores that are read, by their index, each with how clusters in it are compressed, if any are. */
  stores: Map<number, Compression['type'] | undefined>
}

/**
 * Goes through the plan of a copy into a new image.
 * @throws BackupError as the mappings of the disk
 */
export async function surveyPlan(source: Disk, layout: ImageLayout): Promise<Survey> {
  const clusterSize = 2 ** layout.clusterBits
  const plan = planImage(source, layout)
  const clusters = new TouchedUnits(clusterSize)
  const tables = new TouchedUnits(clusterSize ** 2 / ENTRY)
  const stores: Survey['stores'] = new Map()
  for await (const rows of plan) {
    for (let at = 0; at < rows.length; at += COLUMNS) {
      const [kind, start, length, store] = rows.subarray(at, at + 4)
      if (kind === ROW.skip) continue
      tables.add(start, length)
      if (kind === ROW.zero) continue
      clusters.add(start, length)
      stores.set(store, COMPRESSION[kind] ?? stores.get(store))
    }
  }
  return { bytes: imageBytes(source.size, clusters.count, tables.count, clusterSize), stores }
}

/**
 * Like `plannedImageBytes`, by extents, for an image without a backing file.
 * @param enough counting ends when the image takes more, bytes
 */
export async function extentsImageBytes(
  size: number,
  extents: AsyncIterable<Extent>,
  { clusterBits }: ImageLayout,
  enough: number,
): Promise<number> {
  const clusterSize = 2 ** clusterBits
  const clusters = new TouchedUnits(clusterSize)
  const tables = new TouchedUnits(clusterSize ** 2 / ENTRY)
  let bytes = imageBytes(size, 0, 0, clusterSize)
  for await (const { start, length, zero } of extents) {
    if (zero) continue
    tables.add(start, length)
    clusters.add(start, length)
    bytes = imageBytes(size, clusters.count, tables.count, clusterSize)
    if (bytes > enough) break
  }
  return bytes
}

/** @param tables number of L2 tables */
function imageBytes(size: number, data: number, tables: number, clusterSize: number): number {
  const l1 = Math.ceil((Math.ceil(size / (clusterSize ** 2 / ENTRY)) * ENTRY) / clusterSize)
  // With the header.
  const counted = 1 + data + tables + l1
  const { blocks, table } = refcountClusters(counted, clusterSize)
  return (counted + blocks + table) * clusterSize
}

/** Counts the units of a disk that ranges, in rising order, have bytes in. */
class TouchedUnits {
  count = 0
  readonly #unit: number
  /** Units before this one are counted, if they are touched. */
  #next = 0

  constructor(unit: number) {
    this.#unit = unit
  }

  add(start: number, length: number): void {
    const first = Math.max(this.#next, Math.floor(start / this.#unit))
    const end = Math.ceil((start + length) / this.#unit)
    if (end <= first) return
    this.count += end - first
    this.#next = end
  }
}
