import { BackupError } from '../../errors.ts'
import { bitmapStretches } from '../../format/qcow2/bitmap-data.ts'
import { type Bitmap, bitmapTableSize } from '../../format/qcow2/bitmaps.ts'
import { BITMAPS, DATA_FILE_RAW } from '../../format/qcow2/constants.ts'
import { encodeBitmapDirectory, withBitmaps } from '../../format/qcow2/encode.ts'
import { type Allocation, Allocator } from './allocator.ts'
import type { Bits } from './bits.ts'
import type { EditedImage } from './image.ts'
import { diskOf, type ImageDisk, runSteps, type Write } from './steps.ts'

/** A bitmap as it is to be. */
export interface NewBitmap extends Pick<Bitmap, 'name' | 'granularityBits' | 'inUse' | 'auto'> {
  /** Where it is stored already. */
  stored?: Bitmap
  /** Its new content, instead. */
  bits?: Bits
}

/** Clusters that are not used any more: the offset of the first, bytes, and how many. */
interface Unused {
  offset: number
  clusters: number
}

const AUTOCLEAR_FIELD = 88
const REFCOUNT_TABLE_FIELD = 48
/** The autoclear features that we know; the others are cleared by whoever writes (spec). */
const KNOWN_AUTOCLEAR = BITMAPS | DATA_FILE_RAW

/**
 * Gives an image other bitmaps. What is new goes to clusters that were not in use; the image names it
 * when all of it is durable; and what it named before is freed last. So an image whose edit ends
 * anywhere has its old bitmaps, or its new ones, or bitmaps that say they are not to be trusted; it
 * may have leaked clusters.
 * @param disk how it is written to; default: its file
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, IO: nothing is lost then
 */
export async function storeBitmaps(
  image: EditedImage,
  bitmaps: readonly NewBitmap[],
  disk: ImageDisk = diskOf(image.file.handle),
): Promise<void> {
  const { file, header, first } = image
  const allocator = new Allocator(file, header, image.stored)
  const content: Write[] = []
  const entries: Bitmap[] = []
  for (const bitmap of bitmaps) entries.push(await place(bitmap, image, allocator, content))
  const directory = encodeBitmapDirectory(entries)
  const extension = entries.length > 0 ? await placeDirectory(directory) : undefined
  const cluster = withBitmaps(first, header, extension)
  if (!cluster) {
    const why = 'there is no room for bitmaps in its header: its extensions fill the first cluster'
    throw new BackupError('UNSUPPORTED', file.path, why)
  }
  const unused = await unusedBy(image, bitmaps)
  const { fresh, entries: tableEntries, table, blocks } = await allocator.finish()
  if (table) unused.push(oldTable())

  const autoclear = header.autoclearFeatures & KNOWN_AUTOCLEAR
  const cleared = number64(autoclear & ~BITMAPS)
  // The whole cluster as it is to be, but that its bitmaps do not count yet.
  cleared.copy(cluster, AUTOCLEAR_FIELD)
  if (table) tableField(table).copy(cluster, REFCOUNT_TABLE_FIELD)
  try {
    // Nothing refers to any of it yet.
    await runSteps(disk, [[...fresh, ...content]])
  } catch (error) {
    await file.handle.truncate(file.size).catch(() => {})
    throw error
  }
  await runSteps(disk, [
    table ? [{ offset: REFCOUNT_TABLE_FIELD, bytes: tableField(table) }] : tableEntries,
    blocks,
    [{ offset: AUTOCLEAR_FIELD, bytes: cleared }],
    [{ offset: 0, bytes: cluster }],
    extension ? [{ offset: AUTOCLEAR_FIELD, bytes: number64(autoclear | BITMAPS) }] : [],
  ])
  await runSteps(disk, [await freed(image, unused)])

  async function placeDirectory(bytes: Buffer) {
    const clusters = Math.ceil(bytes.length / header.clusterSize)
    const directoryOffset = await allocator.allocate(clusters)
    content.push({ offset: directoryOffset, bytes: filled(bytes, clusters * header.clusterSize) })
    const directorySize = bytes.length
    return { count: entries.length, reserved: 0, directorySize, directoryOffset }
  }

  function oldTable(): Unused {
    return { offset: header.refcountTableOffset, clusters: header.refcountTableClusters }
  }
}

/** Finds a place for what is new of a bitmap; returns its entry of the directory. */
async function place(
  { name, granularityBits, inUse, auto, stored, bits }: NewBitmap,
  { header }: EditedImage,
  allocator: Allocator,
  content: Write[],
): Promise<Bitmap> {
  if (!bits) return { ...(stored as Bitmap), auto }
  const { clusterSize } = header
  const tableSize = bitmapTableSize(header, { granularityBits })
  const clusters = Math.ceil((tableSize * 8) / clusterSize)
  const tableOffset = await allocator.allocate(clusters)
  const table = Buffer.alloc(clusters * clusterSize)
  for (const [index, bytes] of bits.parts()) {
    const offset = await allocator.allocate(1)
    table.writeBigUInt64BE(BigInt(offset), index * 8)
    content.push({ offset, bytes })
  }
  content.push({ offset: tableOffset, bytes: table })
  return { name, granularityBits, inUse, auto, tableOffset, tableSize }
}

/** What the image has for bitmaps now and is not to have any more. */
async function unusedBy(image: EditedImage, bitmaps: readonly NewBitmap[]): Promise<Unused[]> {
  const { header, file } = image
  const { clusterSize } = header
  const unused: Unused[] = []
  // Of bitmaps that are not current nothing counts as in use.
  const { bitmaps: extension } = header.extensions
  if (!extension || (header.autoclearFeatures & BITMAPS) === 0n) return unused
  const clusters = Math.ceil(extension.directorySize / clusterSize)
  unused.push({ offset: extension.directoryOffset, clusters })
  const kept = new Set(bitmaps.filter(({ bits }) => !bits).map(({ stored }) => stored))
  for (const bitmap of image.bitmaps) {
    if (kept.has(bitmap)) continue
    const { tableOffset, tableSize } = bitmap
    unused.push({ offset: tableOffset, clusters: Math.ceil((tableSize * 8) / clusterSize) })
    for await (const { offset, length } of bitmapStretches(file, clusterSize, bitmap)) {
      if (offset !== undefined) unused.push({ offset, clusters: length / clusterSize })
    }
  }
  return unused
}

/** Refcount blocks in which clusters have one reference less. */
async function freed({ header, stored }: EditedImage, unused: readonly Unused[]): Promise<Write[]> {
  const blocks = new Map<number, Write>()
  for (const { offset, clusters } of unused) {
    const first = offset / header.clusterSize
    for (let cluster = first; cluster < first + clusters; cluster++) {
      const index = Math.floor(cluster / stored.perBlock)
      if (stored.get(cluster) === undefined) await stored.load(cluster)
      const refcount = stored.get(cluster)
      // Of more than one, bitmaps of other images' making, it is left: a leak does no harm.
      if (refcount === 1) blocks.set(index, stored.set(cluster, 0))
    }
  }
  return [...blocks.values()]
}

function tableField({ offset, clusters }: NonNullable<Allocation['table']>): Buffer {
  const bytes = Buffer.alloc(12)
  bytes.writeBigUInt64BE(BigInt(offset), 0)
  bytes.writeUInt32BE(clusters, 8)
  return bytes
}

function number64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(value)
  return bytes
}

function filled(bytes: Buffer, length: number): Buffer {
  return Buffer.concat([bytes], length)
}
