import { BackupError } from '../errors.ts'
import {
  type Bitmap,
  bitmapsAreCurrent,
  bitmapTableSize,
  readAnyBitmaps,
  readBitmaps,
} from '../format/qcow2/bitmaps.ts'
import type { Qcow2Header } from '../format/qcow2/header.ts'
import { type ChainImage, closeAll, type OpenOptions, openChain } from '../source/chain.ts'
import { type OpenedFile, openFile } from '../source/file.ts'
import { isWritten } from '../source/locks.ts'
import {
  type BitmapFacts,
  type BitmapHealth,
  type ImageFacts,
  validateBitmapChain,
} from './chain-health.ts'

/** An image of a chain that was looked at. */
export interface ChainReportImage {
  image: string
  format: 'raw' | 'qcow2'
  /** Bytes. */
  virtualSize: number
  /**
   * Another process has it open for writing: its bitmaps are in that process's memory, and those in
   * the file are marked in use, as they should be. QMP's query-named-block-nodes says more.
   */
  live: boolean
}

/** The health of the bitmaps of a backing chain. */
export interface ChainReport {
  /** Top first. */
  images: ChainReportImage[]
  bitmaps: BitmapHealth[]
}

/**
 * Looks at the persistent bitmaps of an image and of all that it builds on, and judges them. Images
 * that are being written to are looked at too.
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED, IO
 */
export async function readBitmapChain(
  top: string,
  {
    format,
    allowPaths,
    backingFormat,
  }: Pick<OpenOptions, 'format' | 'allowPaths' | 'backingFormat'> = {},
): Promise<ChainReport> {
  const options = { format, allowPaths, backingFormat, forceShare: true }
  const { images, layers, files } = await openChain(top, options, openFile)
  try {
    const report: ChainReportImage[] = []
    const facts: ImageFacts[] = []
    for (const [i, found] of images.entries()) {
      const image = { ...found, path: found.path.replace(/^\.\//, '') }
      const live = isWritten(image.file.handle)
      const virtualSize = layers[i].size
      report.push({ image: image.path, format: image.header ? 'qcow2' : 'raw', virtualSize, live })
      facts.push(await factsOf(image, live))
    }
    return { images: report, bitmaps: validateBitmapChain(facts) }
  } finally {
    await closeAll(files)
  }
}

/**
 * What an image of a chain holds of bitmaps.
 * @param live another process has it open for writing
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, IO
 */
export async function factsOf(
  { path, file, header }: ChainImage,
  live: boolean,
): Promise<ImageFacts> {
  if (!header) return { image: path, bitmaps: [], cannot: 'it is raw' }
  if (header.version < 3) return { image: path, bitmaps: [], cannot: 'it is of version 2' }
  const bitmaps = await bitmapsOf(file, header)
  return { image: path, bitmaps: bitmaps.map((bitmap) => bitmapFacts(bitmap, header, live)) }
}

/** Of those that are not current QEMU takes none for an image's; what can be told of them is told. */
async function bitmapsOf(file: OpenedFile, header: Qcow2Header): Promise<Bitmap[]> {
  if (bitmapsAreCurrent(header)) return await readBitmaps(file, header)
  try {
    return await readAnyBitmaps(file, header)
  } catch (error) {
    if (error instanceof BackupError && error.code !== 'IO') return []
    throw error
  }
}

function bitmapFacts(bitmap: Bitmap, header: Qcow2Header, live: boolean): BitmapFacts {
  const why = distrust(bitmap, header, live)
  return {
    name: bitmap.name,
    granularity: 2 ** bitmap.granularityBits,
    recording: bitmap.auto,
    persistent: true,
    inconsistent: why !== undefined,
    why,
  }
}

/** Why it cannot be trusted. */
function distrust(bitmap: Bitmap, header: Qcow2Header, live: boolean): string | undefined {
  if (!bitmapsAreCurrent(header)) {
    return 'is out of date: a program that keeps no bitmaps wrote to the image'
  }
  // While a process has the image open, that is how it marks what is in its memory.
  if (bitmap.inUse && live) return undefined
  if (bitmap.inUse) {
    return 'is inconsistent: a process that had the image open did not store it'
  }
  if (bitmap.tableSize !== bitmapTableSize(header, bitmap))
    return 'is of another size than the disk'
  return undefined
}
