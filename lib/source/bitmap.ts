import { BackupError } from '../errors.ts'
import { bitmapRuns } from '../format/qcow2/bitmap-data.ts'
import {
  type Bitmap,
  bitmapsAreCurrent,
  bitmapTableSize,
  readAnyBitmaps,
  readBitmaps,
} from '../format/qcow2/bitmaps.ts'
import type { DirtyRun } from '../format/qcow2/bits.ts'
import { quoted } from '../format/qcow2/fields.ts'
import type { Qcow2Header } from '../format/qcow2/header.ts'
import type { ImageFile } from '../format/read.ts'
import type { SourceBitmap } from './source.ts'
import { unionOfRuns } from './union.ts'

/** A persistent bitmap of a qcow2 image. */
export interface ImageBitmap extends SourceBitmap {
  /** What it says of the disk: ordered, contiguous, from 0 to the virtual size. */
  runs(): AsyncIterable<readonly DirtyRun[]>
}

/** Names in a message. */
const MOST_LISTED = 10

const REMEDY = 'take a full backup and start a new bitmap'

/** An image of a backing chain; without a header it is raw. */
interface Image {
  file: ImageFile
  header?: Qcow2Header
}

/** A bitmap in one image. */
interface Found {
  file: ImageFile
  header: Qcow2Header
  bitmap: Bitmap
}

/**
 * Opens a bitmap as what changed since it was added: that of the topmost image, and where the chain
 * was built on since, of each image below it down to where it began. One that may have lost writes
 * unnoticed is refused: an incremental backup by it would be wrong, and nobody would know.
 * @param chain top first
 * @throws BackupError BAD_BITMAP if it is not there or not to be trusted; BAD_IMAGE, UNSUPPORTED, IO
 */
export async function openBitmap(chain: readonly Image[], name: string): Promise<ImageBitmap> {
  const [{ file, header }] = chain
  if (!header) {
    throw unusable(file.path, 'raw images hold no bitmaps; those of a running disk come over NBD')
  }
  const top = { file, header, bitmap: await find(file, header, name) }
  requireUsable(top)
  const run = [top, ...(await below(chain, name))]
  const notes = top.bitmap.auto
    ? []
    : [`bitmap ${quoted(name)} is disabled: what was written meanwhile is not in it`]
  const granularity = 2 ** Math.min(...run.map(({ bitmap }) => bitmap.granularityBits))
  return { name, granularity, notes, runs: () => union(run, header.virtualSize) }
}

function union(run: readonly Found[], size: number): AsyncIterable<readonly DirtyRun[]> {
  const all = run.map(({ file, header, bitmap }) => bitmapRuns(file, header, bitmap))
  return all.length === 1 ? all[0] : unionOfRuns(all, size)
}

/** The bitmap in the images below the topmost one that have it, which follow each other. */
async function below(chain: readonly Image[], name: string): Promise<Found[]> {
  const found: Found[] = []
  let lacking: string | undefined
  for (const { file, header } of chain.slice(1)) {
    const bitmap = header && (await findAny(file, header, name))
    if (!bitmap) {
      lacking ??= file.path
      continue
    }
    if (lacking !== undefined) {
      const why = `has no bitmap ${quoted(name)}, but ${file.path} below it has`
      throw unusable(lacking, `${why}: what was written here was not recorded; ${REMEDY}`)
    }
    if (!bitmapsAreCurrent(header)) throw outOfDate(file.path)
    requireUsable({ file, header, bitmap })
    if (!bitmap.auto) {
      const why = `bitmap ${quoted(name)} is disabled: what was written meanwhile is not in it`
      throw unusable(file.path, `${why}; ${REMEDY}`)
    }
    found.push({ file, header, bitmap })
  }
  return found
}

/** Also one that is not current. */
async function findAny(
  file: ImageFile,
  header: Qcow2Header,
  name: string,
): Promise<Bitmap | undefined> {
  if (header.version < 3) return undefined
  return (await readAnyBitmaps(file, header)).find((one) => one.name === name)
}

async function find(file: ImageFile, header: Qcow2Header, name: string): Promise<Bitmap> {
  if (header.version < 3) throw unusable(file.path, 'version 2 images hold no bitmaps')
  if (header.extensions.bitmaps && !bitmapsAreCurrent(header)) {
    throw outOfDate(file.path)
  }
  const bitmaps = await readBitmaps(file, header)
  const bitmap = bitmaps.find((one) => one.name === name)
  if (bitmap) return bitmap
  throw unusable(file.path, `has no bitmap ${quoted(name)}; it has ${listed(bitmaps)}`)
}

function outOfDate(path: string): BackupError {
  const why = 'its bitmaps are out of date: it was written to by a program that keeps none'
  return unusable(path, `${why}; ${REMEDY}`)
}

function listed(bitmaps: readonly Bitmap[]): string {
  if (bitmaps.length === 0) return 'none'
  const names = bitmaps.slice(0, MOST_LISTED).map(({ name }) => quoted(name))
  const more = bitmaps.length - names.length
  return names.join(', ') + (more > 0 ? ` and ${more} more` : '')
}

function requireUsable({ file: { path }, header, bitmap }: Found): void {
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
}

function unusable(path: string, why: string): BackupError {
  return new BackupError('BAD_BITMAP', path, why)
}
