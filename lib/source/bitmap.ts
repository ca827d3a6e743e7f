import { BackupError } from '../errors.ts'
import { bitmapRuns } from '../format/qcow2/bitmap-data.ts'
import {
  type Bitmap,
  bitmapsAreCurrent,
  bitmapTableSize,
  readBitmaps,
} from '../format/qcow2/bitmaps.ts'
import type { DirtyRun } from '../format/qcow2/bits.ts'
import { quoted } from '../format/qcow2/fields.ts'
import type { Qcow2Header } from '../format/qcow2/header.ts'
import type { ImageFile } from '../format/read.ts'
import type { SourceBitmap } from './source.ts'

/** A persistent bitmap of a qcow2 image. */
export interface ImageBitmap extends SourceBitmap {
  /** What it says of the disk: ordered, contiguous, from 0 to the virtual size. */
  runs(): AsyncIterable<readonly DirtyRun[]>
}

/** Names in a message. */
const MOST_LISTED = 10

const REMEDY = 'take a full backup and start a new bitmap'

/**
 * Opens a bitmap of an image as what changed since it was added. One that may have lost writes
 * unnoticed is refused: an incremental backup by it would be wrong, and nobody would know.
 * @throws BackupError BAD_BITMAP if it is not there or not to be trusted; BAD_IMAGE, UNSUPPORTED, IO
 */
export async function openBitmap(
  file: ImageFile,
  header: Qcow2Header,
  name: string,
): Promise<ImageBitmap> {
  const bitmap = requireUsable(file.path, header, await find(file, header, name))
  const notes = bitmap.auto
    ? []
    : [`bitmap ${quoted(name)} is disabled: what was written meanwhile is not in it`]
  return {
    name,
    granularity: 2 ** bitmap.granularityBits,
    notes,
    runs: () => bitmapRuns(file, header, bitmap),
  }
}

/** What a raw image gets that is asked for a bitmap. */
export function noBitmaps(path: string): BackupError {
  return unusable(path, 'raw images hold no bitmaps; those of a running disk come over NBD')
}

async function find(file: ImageFile, header: Qcow2Header, name: string): Promise<Bitmap> {
  if (header.version < 3) throw unusable(file.path, 'version 2 images hold no bitmaps')
  if (header.extensions.bitmaps && !bitmapsAreCurrent(header)) {
    const why = 'its bitmaps are out of date: it was written to by a program that keeps none'
    throw unusable(file.path, `${why}; ${REMEDY}`)
  }
  const bitmaps = await readBitmaps(file, header)
  const bitmap = bitmaps.find((one) => one.name === name)
  if (bitmap) return bitmap
  throw unusable(file.path, `has no bitmap ${quoted(name)}; it has ${listed(bitmaps)}`)
}

function listed(bitmaps: readonly Bitmap[]): string {
  if (bitmaps.length === 0) return 'none'
  const names = bitmaps.slice(0, MOST_LISTED).map(({ name }) => quoted(name))
  const more = bitmaps.length - names.length
  return names.join(', ') + (more > 0 ? ` and ${more} more` : '')
}

function requireUsable(path: string, header: Qcow2Header, bitmap: Bitmap): Bitmap {
  const name = quoted(bitmap.name)
  if (bitmap.inUse) {
    const why =
      `bitmap ${name} is in use: a process has the image open for writing, or one ended without ` +
      'storing it'
    throw unusable(path, `${why}; stop that process, or else ${REMEDY}`)
  }
  const size = bitmapTableSize(header, bitmap)
  if (bitmap.tableSize !== size) {
    const why = `bitmap ${name} has ${bitmap.tableSize} clusters, where the disk needs ${size}`
    throw unusable(path, `${why}; ${REMEDY}`)
  }
  return bitmap
}

function unusable(path: string, why: string): BackupError {
  return new BackupError('BAD_BITMAP', path, why)
}
