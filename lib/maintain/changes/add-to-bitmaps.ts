import { addStored, Bits } from '../../edit/bits.ts'
import { type EditedImage, reopened } from '../../edit/edited-image.ts'
import { type NewBitmap, storeBitmaps } from '../../edit/store-bitmaps.ts'
import { throwIfAborted } from '../../errors.ts'
import { type Bitmap, readBitmaps } from '../../format/qcow2/bitmaps.ts'
import type { Qcow2Header } from '../../format/qcow2/header-fields.ts'
import type { ChainImage } from '../../image/image-chain.ts'
import type { ImageDisk } from '../../image/steps.ts'

/** Bytes of bits that are held in memory until they are stored, but for those of one bitmap more. */
const MAX_BITS_BYTES = 32 * 2 ** 20

/** How bitmaps of an image get more bits. */
export interface BitAddition {
  disk: ImageDisk
  signal?: AbortSignal
  /** Sets more bits of one. */
  add(bits: Bits, name: string): Promise<void>
}

/**
 * Sets more bits in some bitmaps of an image, as many of them at once as memory is allowed for.
 * @returns the image as it is then
 */
export async function addToBitmaps(
  opened: EditedImage,
  names: ReadonlySet<string>,
  { disk, signal, add }: BitAddition,
): Promise<EditedImage> {
  let image = opened
  const left = new Set(image.bitmaps.map(({ name }) => name).filter((name) => names.has(name)))
  while (left.size > 0) {
    const bitmaps: NewBitmap[] = []
    let held = 0
    for (const stored of image.bitmaps) {
      if (held > MAX_BITS_BYTES || !left.delete(stored.name)) {
        bitmaps.push({ ...stored, stored })
        continue
      }
      throwIfAborted(signal, image.file.path)
      const bits = await bitsOf(image, stored, image.header.virtualSize, signal)
      await add(bits, stored.name)
      held += bits.bytes
      bitmaps.push({ ...stored, bits })
    }
    await storeBitmaps(image, bitmaps, { disk, signal })
    image = await reopened(image)
  }
  return image
}

/** The bits of a bitmap of an image, for a disk of another size. */
export async function bitsOf(
  image: EditedImage,
  stored: Bitmap,
  size: number,
  signal: AbortSignal | undefined,
): Promise<Bits> {
  const { file, header } = image
  const bits = new Bits(size, 2 ** stored.granularityBits, header.clusterSize)
  await addStored(bits, file, header, stored, { signal })
  return bits
}

/** An image of a chain, and its bitmaps by their names. */
export interface ImageBitmaps {
  file: ChainImage['file']
  header: Qcow2Header
  bitmaps: ReadonlyMap<string, Bitmap>
}

/** Read once for all bitmaps, of which an image may have any number. */
export async function bitmapsOf(chain: readonly ChainImage[]): Promise<ImageBitmaps[]> {
  const images: ImageBitmaps[] = []
  for (const { file, header } of chain) {
    const bitmaps = await readBitmaps(file, header as Qcow2Header)
    const byName = new Map(bitmaps.map((bitmap) => [bitmap.name, bitmap]))
    images.push({ file, header: header as Qcow2Header, bitmaps: byName })
  }
  return images
}

/**
 * Adds a bitmap's dirty ranges in some images of a chain. Bytes past the end of a shorter image count as
 * dirty: it hides the content of those below it there, which no bitmap records.
 */
export async function addFrom(
  bits: Bits,
  images: readonly ImageBitmaps[],
  name: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  for (const { file, header, bitmaps } of images) {
    const bitmap = bitmaps.get(name)
    if (!bitmap) continue
    const { virtualSize } = header
    await addStored(bits, file, header, bitmap, { signal })
    if (virtualSize < bits.size) bits.add(virtualSize, bits.size - virtualSize)
  }
}
