import type { Progress } from '../../copy/copy-progress.ts'
import { type EditedImage, prepareEdit } from '../../edit/edited-image.ts'
import { foreignFeatures } from '../../edit/header-steps.ts'
import { requireGrowth } from '../../edit/require-growth.ts'
import { unshareTables } from '../../edit/unshare.ts'
import { BackupError, ioError, unsupported } from '../../errors.ts'
import type { OpenFile } from '../../image/file.ts'
import { removeOpened } from '../../image/remove-opened.ts'
import { runSteps } from '../../image/steps.ts'
import { type Chain, closeAll, type OpenOptions } from '../../source/source-chain.ts'
import type { ChangeDisk } from '../changes/batch.ts'
import { bitmapClusters, requireFreeClusters } from '../changes/capacity.ts'
import { ByteCounter, changesOf } from '../changes/changes.ts'
import { changeDisk } from '../changes/write-changes.ts'
import { type BitmapPlan, finishBitmaps, planBitmaps, recordFirst } from './commit-bitmaps.ts'
import { CommitProgress } from './commit-progress.ts'
import { heldMappings } from './held-mappings.ts'
import { openToCommit } from './open-to-commit.ts'
import { type CommitPlan, commitToQcow2 } from './to-qcow2.ts'
import { commitToRaw } from './to-raw.ts'

export interface CommitOptions extends Pick<OpenOptions, 'allowPaths' | 'backingFormat'> {
  /** Path of the image of the chain that gets the data. Default: the one below the top. */
  base?: string
  /** Remove the images that were committed, when all of it is durable. */
  delete?: boolean
  /** Maximum bytes read per second. */
  rateLimit?: number
  signal?: AbortSignal
  onProgress?: (progress: Progress) => void
  /** How a base of format qcow2 is written to; for tests. */
  disk?: (disk: ChangeDisk) => ChangeDisk
}

/** Result of a commit; sizes in bytes. */
export interface CommitResult {
  top: string
  /** The image that holds the content now. */
  base: string
  /** Of the base, bytes. */
  virtualSize: number
  /** Guest bytes that the images above the base held as data, and as zero. */
  dataBytes: number
  zeroBytes: number
  /** Bitmaps of the base into which those of the same name above were merged. */
  merged: string[]
  /** Bitmaps that the base did not have. */
  created: string[]
  /** Images that were removed. */
  deleted: string[]
  /** Bitmaps that end here, with the reason. */
  notes: string[]
  elapsedSeconds: number
}

/**
 * Commits the content of an image, and of all between it and a base, into the base; then the
 * bitmaps: the base's is the union of them, and no more. The images above
 * the base are not written to, and the guest content seen through them never changes: so a
 * commit that is interrupted can be run again, whatever was done of it. Nobody else may write to any
 * of the images.
 * @param top path of a qcow2 image
 * @throws BackupError USAGE if the base is not below the top; IN_USE, BAD_BITMAP, BAD_TARGET, as where
 * a device is too small: nothing is written then; BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED, IO, ABORTED; with `delete` SOURCE_CHANGED or IO
 * if an image that was committed cannot be removed
 */
export async function commitImage(top: string, options: CommitOptions = {}): Promise<CommitResult> {
  const started = performance.now()
  const { allowPaths, backingFormat } = options
  const access = { allowPaths, backingFormat, signal: options.signal }
  const { chain, base, file } = await openToCommit(top, options.base, access)
  try {
    const image = chain.images[base].header ? await prepareBase(file, options) : undefined
    const size = sizeOf(chain, base)
    if (image) requireGrowth(image, size)
    const counter = new ByteCounter()
    const { signal, onProgress } = options
    const progress = new CommitProgress(size, counter, onProgress)
    const plan: CommitPlan = { chain, base, size, counter, signal, progress }
    const bitmaps = await planBitmaps(plan, image)
    if (image?.file.blockDevice) await requireCapacity(image, plan, bitmaps)
    if (image) await commitQcow2(image, plan, bitmaps, options)
    else await commitToRaw(file, plan, options)
    const deleted = options.delete ? await removeImages(chain, base) : []
    return {
      top,
      base: chain.images[base].path,
      virtualSize: size,
      dataBytes: counter.dataBytes,
      zeroBytes: counter.zeroBytes,
      merged: bitmaps.merged,
      created: bitmaps.created.map(({ name }) => name),
      deleted,
      notes: options.delete ? [...bitmaps.notes, ...leftDataFiles(chain, base)] : bitmaps.notes,
      elapsedSeconds: (performance.now() - started) / 1000,
    }
  } finally {
    await file.handle.close()
    await closeAll(chain.files)
  }
}

async function commitQcow2(
  opened: EditedImage,
  plan: CommitPlan,
  bitmaps: BitmapPlan,
  options: CommitOptions,
): Promise<void> {
  const { path } = opened.file
  try {
    const { progress } = plan
    const { rateLimit, signal } = options
    const base = changeDisk(opened, plan.chain.files, {
      rateLimit,
      signal,
      onProgress: ({ dataBytes }) => progress.copying(dataBytes),
    })
    const disk = options.disk?.(base) ?? base
    await runSteps(disk, [foreignFeatures(opened)])
    const own = await unshareTables(opened, disk, signal)
    const recorded = await recordFirst(own, plan, bitmaps, disk)
    const filled = await commitToQcow2(recorded, plan, disk)
    await finishBitmaps(filled, plan, bitmaps, disk)
  } catch (error) {
    throw (error as NodeJS.ErrnoException).syscall ? ioError(path, error) : error
  }
}

/** @throws BackupError BAD_TARGET if the device is too small for what may be committed */
async function requireCapacity(
  image: EditedImage,
  { chain, base, size, signal }: CommitPlan,
  bitmaps: BitmapPlan,
): Promise<void> {
  const { clusterSize, virtualSize } = image.header
  const mappings = heldMappings(chain.layers.slice(0, base), virtualSize)
  const below = chain.layers[base + 1]?.size ?? 0
  const planned = { changes: changesOf(mappings, clusterSize, size), below, size, signal }
  const { created, merged, recording } = bitmaps
  const changing = [...merged, ...recording]
  await requireFreeClusters(image, planned, bitmapClusters(image, size, { changing, created }))
}

async function prepareBase(
  file: OpenFile,
  { signal, onProgress }: CommitOptions,
): Promise<EditedImage> {
  const image = await prepareEdit(file, { signal, onProgress })
  if (!image.header.externalDataFile) return image
  throw unsupported(file.path, 'has an external data file; committing to it is not supported')
}

/** Of the disk when all is committed: QEMU's rule, by which a base grows but never shrinks. */
function sizeOf({ layers }: Chain, base: number): number {
  return Math.max(layers[0].size, layers[base].size)
}

/**
 * From the top down: the remaining images are a sound chain at every step.
 * @throws BackupError, which says that the commit is complete
 */
async function removeImages({ images }: Chain, base: number): Promise<string[]> {
  const deleted: string[] = []
  for (const { path, file } of images.slice(0, base)) {
    if (file.blockDevice) continue
    try {
      await removeOpened(path, file)
    } catch (error) {
      const { code, why, errno } = ioError(path, error)
      const before = deleted.length > 0 ? `; removed before it: ${deleted.join(', ')}` : ''
      const stands = `all is committed into ${images[base].path}, but it is not deleted: ${why}`
      throw new BackupError(code, path, stands + before, { cause: error, errno })
    }
    deleted.push(path)
  }
  return deleted
}

/** An image that goes leaves the file that its data was in: that may hold a raw disk of its own. */
function leftDataFiles({ images }: Chain, base: number): string[] {
  return images
    .slice(0, base)
    .flatMap(({ path, dataFile }) =>
      dataFile
        ? [`${dataFile.path}: the data file of ${path} is left; remove it if it is not needed`]
        : [],
    )
}
