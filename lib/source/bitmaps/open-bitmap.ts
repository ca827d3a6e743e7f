import { BackupError } from '../../errors.ts'
import { bitmapRuns } from '../../format/qcow2/bitmap-data.ts'
import { type Bitmap, readBitmaps } from '../../format/qcow2/bitmaps.ts'
import type { DirtyRun } from '../../format/qcow2/bits.ts'
import type { Qcow2Header } from '../../format/qcow2/header-fields.ts'
import type { ImageFile } from '../../format/read.ts'
import { isWritten } from '../../image/locks.ts'
import { listed, quoted } from '../../text.ts'
import type { SourceBitmap } from '../source.ts'
import { factsOf, type LookedAt } from './facts.ts'
import {
  type BitmapHealth,
  faultsOf,
  type ImageFacts,
  shorterThanDisk,
  validateBitmapChain,
} from './health.ts'
import { unionOfRuns } from './union.ts'

/** A persistent bitmap of a qcow2 image. */
export interface ImageBitmap extends SourceBitmap {
  /** Its runs: ordered, contiguous, from 0 to the virtual size. */
  runs(): AsyncIterable<readonly DirtyRun[]>
}

/** Names in a message. */
const MAX_LISTED = 10

/** A bitmap in one image. */
interface Found {
  file: ImageFile
  header: Qcow2Header
  bitmap: Bitmap
}

/** A bitmap may have lost writes along its chain. */
export class BadBitmapChain extends BackupError {
  /** The health of the bitmap in each image, as `chain` reports it. */
  readonly report: BitmapHealth

  constructor(what: string, why: string, report: BitmapHealth) {
    super('BAD_BITMAP', what, why)
    this.report = report
  }
}

/**
 * Opens a bitmap as the changes since it was added: that of the topmost image, and where the chain
 * was built on since, of each image below it down to where it began. One that may have lost writes
 * unnoticed is refused: an incremental backup by it would be wrong, and nobody would know.
 * @param chain top first
 * @throws BackupError BAD_BITMAP if it is not there or not to be trusted (a BadBitmapChain then);
 * BAD_IMAGE, UNSUPPORTED, IO
 */
export async function openBitmap(chain: readonly LookedAt[], name: string): Promise<ImageBitmap> {
  const [{ file, header }] = chain
  if (!header) {
    throw unusable(file.path, 'raw images hold no bitmaps; those of a running disk come over NBD')
  }
  if (header.version < 3) throw unusable(file.path, 'version 2 images hold no bitmaps')
  // Who has an image open for writing has its bitmaps in memory: those in the file do not count.
  const facts = await Promise.all(
    chain.map((image) => factsOf({ ...image, path: image.file.path }, false)),
  )
  const [{ bitmaps }] = facts
  if (!bitmaps.some((one) => one.name === name)) {
    const names = listed(bitmaps, MAX_LISTED, (one) => quoted(one.name))
    const has = names === '' ? 'none' : names
    throw unusable(file.path, `has no bitmap ${quoted(name)}; it has ${has}`)
  }
  requireHealthy(chain, facts, name)
  const run: Found[] = []
  for (const image of chain) {
    const found = image.header && (await find(image.file, image.header, name))
    if (!found) break
    run.push(found)
  }
  const notes = shorterThanDisk(name, facts)
  if (!run[0].bitmap.auto) {
    const why = `bitmap ${quoted(name)} is disabled: writes made meanwhile are not recorded`
    notes.unshift(why)
  }
  const granularity = 2 ** Math.min(...run.map(({ bitmap }) => bitmap.granularityBits))
  return { name, granularity, notes, runs: () => union(run, header.virtualSize) }
}

/** In the topmost image it may be disabled, as `diff` stores it. */
function requireHealthy(
  chain: readonly LookedAt[],
  facts: readonly ImageFacts[],
  name: string,
): void {
  const [first, ...more] = faultsOf(name, facts).filter(({ image, disabled }) => {
    return image > 0 || !disabled
  })
  if (!first) return
  const report = validateBitmapChain(facts).find((one) => one.name === name) as BitmapHealth
  const { image } = facts[first.image]
  if (isWritten(chain[first.image].file.handle)) {
    const why =
      `bitmap ${quoted(name)} is in use: another process has the image open for writing; stop it, ` +
      'or back up through its NBD export'
    throw new BadBitmapChain(image, why, report)
  }
  const rest = more.length > 0 ? ` (and ${more.length} more: see chain)` : ''
  throw new BadBitmapChain(image, `${first.why}${rest}`, report)
}

function union(run: readonly Found[], size: number): AsyncIterable<readonly DirtyRun[]> {
  const all = run.map(({ file, header, bitmap }) => bitmapRuns(file, header, bitmap))
  return all.length === 1 ? all[0] : unionOfRuns(all, size)
}

async function find(
  file: ImageFile,
  header: Qcow2Header,
  name: string,
): Promise<Found | undefined> {
  if (header.version < 3) return undefined
  const bitmap = (await readBitmaps(file, header)).find((one) => one.name === name)
  return bitmap && { file, header, bitmap }
}

function unusable(path: string, why: string): BackupError {
  return new BackupError('BAD_BITMAP', path, why)
}
