import { BackupError, throwIfAborted, unsupported } from '../errors.ts'
import { bitmapStretches } from '../format/qcow2/bitmap-data.ts'
import { type Bitmap, bitmapTableSize } from '../format/qcow2/bitmaps.ts'
import { BITMAPS, MAX_BITMAP_DIRECTORY_BYTES, MAX_BITMAPS } from '../format/qcow2/constants.ts'
import { encodeBitmapDirectory } from '../format/qcow2/encode.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { diskOf, type ImageDisk, type Write } from '../image/steps.ts'
import { Allocator } from './allocator.ts'
import type { Bits } from './bits.ts'
import { runEdit, writeUnreferenced } from './edit.ts'
import type { EditedImage } from './edited-image.ts'
import { headerSteps, requireRoom } from './header-steps.ts'
import { type Lost, lose } from './release.ts'

/** Bit 0 of a bitmap table's entry: all bits of the cluster are set, and it is not stored. */
const ALL_ONES = 1n

/** A bitmap as it is to be. */
export interface NewBitmap extends Pick<Bitmap, 'name' | 'granularityBits' | 'inUse' | 'auto'> {
  /** Where it is stored already. */
  stored?: Bitmap
  /** Its new content, instead. */
  bits?: Bits
}

/** Further changes of an image that gets other bitmaps. */
export interface StoreOptions {
  /** How it is written to; default: its file. */
  disk?: ImageDisk
  /** Its new size, bytes; not below the old one, and its L1 table is large enough. */
  virtualSize?: number
  /** Forget those that are not current, instead of keeping them as inconsistent. */
  forgetStale?: boolean
  /** Cancels it, until the image refers to the new bitmaps. */
  signal?: AbortSignal
}

/**
 * Replaces an image's bitmaps. New data goes to clusters that were not in use; the image refers to it
 * when all of it is durable, by one write of a sector; the old clusters are freed last. So an
 * image whose edit ends anywhere has its old bitmaps or its new ones; it may have leaked clusters.
 * Only where the last bitmap goes, it may also say that it is out of date. Bitmaps of the image that are
 * out of date become inconsistent ones, or new ones of the same name (ADR 10).
 * @param bitmaps those to have, each of the new size if there is one, or in use
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, IO, ABORTED: nothing is lost then
 */
export async function storeBitmaps(
  image: EditedImage,
  bitmaps: readonly NewBitmap[],
  options: StoreOptions = {},
): Promise<void> {
  const { file } = image
  const { disk = diskOf(file.handle), virtualSize = image.header.virtualSize, signal } = options
  const stale = options.forgetStale ? [] : staleToKeep(image, bitmaps)
  const header = { ...image.header, virtualSize }
  const { clusterSize } = header
  const allocator = new Allocator(file, header, image.stored)
  const content = new Content(file.size)
  const entries: Bitmap[] = []
  for (const bitmap of stale) entries.push(await placeStale(bitmap))
  for (const bitmap of bitmaps) {
    throwIfAborted(signal, file.path)
    entries.push(await place(bitmap, header, allocator, content))
  }
  const directory = encodeBitmapDirectory(entries)
  if (directory.length > MAX_BITMAP_DIRECTORY_BYTES) {
    const why = `the directory of its bitmaps would exceed ${MAX_BITMAP_DIRECTORY_BYTES} bytes`
    throw unsupported(file.path, why)
  }
  const extension = entries.length > 0 ? await placeDirectory(directory) : undefined
  requireRoom(image, extension)
  await runEdit(image, disk, {
    allocator,
    lost: await unusedBy(image, bitmaps, signal),
    prepare: (fresh) => writeUnreferenced(image, disk, [...fresh, ...content.writes()], signal),
    naming: (table) => headerSteps(image, { extension, virtualSize, table }),
  })

  /** What is left of its table is nobody's. */
  async function placeStale(bitmap: Bitmap): Promise<Bitmap> {
    const tableOffset = await allocator.allocate(1)
    content.addZeroes(tableOffset, clusterSize)
    return { ...bitmap, inUse: true, tableOffset, tableSize: 1 }
  }

  async function placeDirectory(bytes: Buffer) {
    const clusters = Math.ceil(bytes.length / clusterSize)
    const directoryOffset = await allocator.allocate(clusters)
    content.add({ offset: directoryOffset, bytes: filled(bytes, clusters * clusterSize) })
    const directorySize = bytes.length
    return { count: entries.length, reserved: 0, directorySize, directoryOffset }
  }
}

/**
 * The bitmaps that are not current, but for those of the same names as new ones.
 * @throws BackupError BAD_BITMAP if it is not known which there were, or there would be too many
 */
function staleToKeep({ file, stale }: EditedImage, bitmaps: readonly NewBitmap[]): Bitmap[] {
  const fail = (why: string) => new BackupError('BAD_BITMAP', file.path, `its bitmaps are ${why}`)
  const wayOut = 'remove all of its bitmaps first'
  if (!stale) throw fail(`out of date, and their names are lost; ${wayOut}`)
  const names = new Set(bitmaps.map(({ name }) => name))
  const kept = stale.filter(({ name }) => !names.has(name))
  if (kept.length > 0 && kept.length + names.size > MAX_BITMAPS) {
    throw fail(`out of date, and there would be more than ${MAX_BITMAPS}; ${wayOut}`)
  }
  return kept
}

/** Writes to clusters that were not in use. */
class Content {
  readonly #fileSize: number
  readonly #writes: Write[] = []
  /** Zeroes by their length, once for all tables of empty bitmaps. */
  readonly #zeroes = new Map<number, Buffer>()
  /** Where the file ends with it all. */
  #end = 0

  /** @param fileSize bytes of the image as it is */
  constructor(fileSize: number) {
    this.#fileSize = fileSize
  }

  add(write: Write): void {
    this.#writes.push(write)
    this.#end = Math.max(this.#end, write.offset + write.bytes.length)
  }

  addZeroes(offset: number, length: number): void {
    const bytes = this.#zeroes.get(length) ?? Buffer.alloc(length)
    this.#zeroes.set(length, bytes)
    this.add({ offset, bytes })
  }

  /** The bytes to write: zeroes past the end of the file need no write. */
  writes(): Write[] {
    return this.#writes.filter(({ offset, bytes }) => {
      const isHole = offset >= this.#fileSize && this.#zeroes.get(bytes.length) === bytes
      return !isHole || offset + bytes.length === this.#end
    })
  }
}

/** Allocates clusters for a bitmap's new data; returns its directory entry. */
async function place(
  { name, granularityBits, inUse, auto, stored, bits }: NewBitmap,
  header: Qcow2Header,
  allocator: Allocator,
  content: Content,
): Promise<Bitmap> {
  if (!bits) return { ...(stored as Bitmap), auto }
  const { clusterSize } = header
  const tableSize = bitmapTableSize(header, { granularityBits })
  const clusters = Math.ceil((tableSize * 8) / clusterSize)
  const tableOffset = await allocator.allocate(clusters)
  const parts = [...bits.parts()]
  if (parts.length === 0) content.addZeroes(tableOffset, clusters * clusterSize)
  else {
    const table = Buffer.alloc(clusters * clusterSize)
    for (const [index, bytes] of parts) {
      if (bits.isFull(index)) {
        table.writeBigUInt64BE(ALL_ONES, index * 8)
        continue
      }
      const offset = await allocator.allocate(1)
      table.writeBigUInt64BE(BigInt(offset), index * 8)
      content.add({ offset, bytes })
    }
    content.add({ offset: tableOffset, bytes: table })
  }
  return { name, granularityBits, inUse, auto, tableOffset, tableSize, raw: stored?.raw }
}

/** Clusters of the current bitmaps that are to be freed. */
async function unusedBy(
  image: EditedImage,
  bitmaps: readonly NewBitmap[],
  signal: AbortSignal | undefined,
): Promise<Lost> {
  const { header, file } = image
  const { clusterSize } = header
  const unused: Lost = new Map()
  // Of bitmaps that are not current nothing counts as in use.
  const { bitmaps: extension } = header.extensions
  if (!extension || (header.autoclearFeatures & BITMAPS) === 0n) return unused
  lose(unused, extension.directoryOffset, extension.directorySize, clusterSize)
  const kept = new Set(bitmaps.map(({ bits, stored }) => (bits ? undefined : stored?.tableOffset)))
  for (const bitmap of image.bitmaps) {
    if (kept.has(bitmap.tableOffset)) continue
    lose(unused, bitmap.tableOffset, bitmap.tableSize * 8, clusterSize)
    const stretches = bitmapStretches(file, clusterSize, bitmap, undefined, signal)
    for await (const { offset, length } of stretches) {
      if (offset !== undefined) lose(unused, offset, length, clusterSize)
    }
  }
  return unused
}

function filled(bytes: Buffer, length: number): Buffer {
  return Buffer.concat([bytes], length)
}
