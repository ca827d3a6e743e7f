import { BackupError } from '../../errors.ts'
import {
  type Bitmap,
  bitmapsAreCurrent,
  bitmapTableSize,
  readAnyBitmaps,
  readBitmaps,
} from '../../format/qcow2/bitmaps.ts'
import type { Qcow2Header } from '../../format/qcow2/header-fields.ts'
import type { ImageFile } from '../../format/read.ts'
import type { BitmapFacts, ImageFacts } from './health.ts'

/** An image of a backing chain; without a header it is raw. */
export interface LookedAt {
  path: string
  file: ImageFile
  header?: Qcow2Header
}

/**
 * The bitmaps of an image of a chain.
 * @param live another process has it open for writing
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, IO
 */
export async function factsOf(
  { path, file, header }: LookedAt,
  live: boolean,
): Promise<ImageFacts> {
  if (!header) return { image: path, bitmaps: [], cannot: 'it is raw' }
  const { virtualSize } = header
  if (header.version < 3) {
    return { image: path, bitmaps: [], virtualSize, cannot: 'it is of version 2' }
  }
  const bitmaps = await bitmapsOf(file, header)
  return {
    image: path,
    bitmaps: bitmaps.map((bitmap) => bitmapFacts(bitmap, header, live)),
    virtualSize,
  }
}

/** Bitmaps that are not current: QEMU ignores them; they are listed as far as they can be read. */
async function bitmapsOf(file: ImageFile, header: Qcow2Header): Promise<Bitmap[]> {
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
  // A process that has the image open marks bitmaps that it keeps in memory in this way.
  if (bitmap.inUse && live) return undefined
  if (bitmap.inUse) {
    return 'is inconsistent: a process that had the image open did not store it'
  }
  if (bitmap.tableSize !== bitmapTableSize(header, bitmap))
    return 'is of another size than the disk'
  return undefined
}
