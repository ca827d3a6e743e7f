import {
  type Bitmap,
  bitmapsAreCurrent,
  bitmapTableSize,
  readBitmaps,
  readStaleBitmaps,
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
  const facts: ImageFacts = { image: path, bitmaps: [], virtualSize }
  if (header.version < 3) facts.cannot = 'it is of version 2'
  // QEMU ignores those that are not current, and forgets them when it writes.
  const current = bitmapsAreCurrent(header)
  const bitmaps = await (current ? readBitmaps : readStaleBitmaps)(file, header)
  if (bitmaps) facts.bitmaps = bitmaps.map((bitmap) => bitmapFacts(bitmap, header, live))
  else facts.unreadable = `its bitmaps are ${OUT_OF_DATE}, and their names are lost`
  return facts
}

const OUT_OF_DATE = 'out of date: a program that keeps no bitmaps wrote to the image'

function bitmapFacts(bitmap: Bitmap, header: Qcow2Header, live: boolean): BitmapFacts {
  const why = distrust(bitmap, header, live)
  return {
    name: bitmap.name,
    granularity: 2 ** bitmap.granularityBits,
    recording: bitmap.auto,
    persistent: true,
    inconsistent: why !== undefined,
    why,
    ...(bitmapsAreCurrent(header) ? {} : { remedy: 'take a full backup and add it again' }),
  }
}

/** Why it cannot be trusted. */
function distrust(bitmap: Bitmap, header: Qcow2Header, live: boolean): string | undefined {
  if (!bitmapsAreCurrent(header)) {
    return `is ${OUT_OF_DATE}`
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
