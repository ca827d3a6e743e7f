import { firstFault } from '../check/first-fault.ts'
import { StoredRefcounts } from '../check/stored-refcounts.ts'
import { argumentError, badImage, unsupported } from '../errors.ts'
import { inFile } from '../format/format-error.ts'
import { type Bitmap, readBitmaps, readStaleBitmaps } from '../format/qcow2/bitmaps.ts'
import { CORRUPT, DIRTY } from '../format/qcow2/constants.ts'
import { readFirstCluster } from '../format/qcow2/first-cluster.ts'
import { decodeHeader } from '../format/qcow2/header.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { loadHeader } from '../format/qcow2/qcow2-image.ts'
import { type OpenFile, openWritable, toOpenFile } from '../image/file.ts'
import { lockOpened, WRITING } from '../image/locks.ts'
import { probeFile } from '../image/recognise.ts'
import { log } from '../log.ts'
import type { ControlOptions } from '../options.ts'

/** An image that is being edited: nobody else writes to it, and it was found sound. */
export interface EditedImage {
  file: OpenFile
  header: Qcow2Header
  /** Its first cluster. */
  first: Buffer
  stored: StoredRefcounts
  /** None where they are not current. */
  bitmaps: Bitmap[]
  /** Those that are not current; undefined if it is not known any more which there were. */
  stale: Bitmap[] | undefined
}

/**
 * Opens an image to be edited. An edit takes clusters that the image says it does not use; so what
 * it says must be right, and it is checked first.
 * @throws BackupError IN_USE, IO; BAD_IMAGE if it is corrupt, dirty, or found to be corrupt;
 * UNSUPPORTED if it is not qcow2; ABORTED
 */
export async function openToEdit(path: string, control: ControlOptions = {}): Promise<EditedImage> {
  if (path === '') throw argumentError('image', 'the name is empty')
  const file = await openWritable(path)
  try {
    return await prepareEdit(await lockOpened(file, WRITING), control)
  } catch (error) {
    await file.handle.close()
    throw error
  }
}

/**
 * Makes an image ready to be edited that is open for writing, and locked.
 * @param sound what `stateOf` said when the image was sound, under the same lock: if it says so still,
 * the image is not checked again
 * @throws BackupError IO; BAD_IMAGE if it is corrupt, dirty, or found to be corrupt; UNSUPPORTED if it
 * is not qcow2
 */
export async function prepareEdit(
  file: OpenFile,
  control: ControlOptions = {},
  sound?: string,
): Promise<EditedImage> {
  const { path } = file
  const header = await requireEditable(file)
  if (sound !== undefined && (await stateOf(file)) === sound) {
    log('edit', () => `${path}: is as the last edit left it, and not checked again`)
    return await editedImage(file)
  }
  log('edit', () => `${path}: checking it before it is written to`)
  const fault = await firstFault(file, header, { ...control, leaks: false })
  if (fault !== undefined) {
    const why = `is corrupt, and is not written to: ${fault}; run check -r all first`
    throw badImage(path, why)
  }
  return await editedImage(file)
}

/**
 * A file's size and when it was written to: the same as long as nobody does, lock or no lock.
 * @returns undefined of a block device, which does not tell
 * @throws errors of the system call
 */
export async function stateOf({ handle, blockDevice }: OpenFile): Promise<string | undefined> {
  if (blockDevice) return undefined
  const { size, mtimeNs, ctimeNs } = await handle.stat({ bigint: true })
  return [size, mtimeNs, ctimeNs].join()
}

/**
 * The same for an edit of the header, which takes no clusters: the image is not checked.
 * @throws BackupError IO; BAD_IMAGE if it is corrupt or dirty; UNSUPPORTED if it is not qcow2
 */
export async function prepareHeaderEdit(file: OpenFile): Promise<EditedImage> {
  await requireEditable(file)
  return await editedImage(file)
}

async function requireEditable(file: OpenFile): Promise<Qcow2Header> {
  if ((await probeFile(file)) !== 'qcow2') throw unsupported(file.path, 'is not a qcow2 image')
  const header = await loadHeader(file)
  requireClosed(file.path, header)
  return header
}

/**
 * An image that is being edited as it is now, after a part of it was written.
 * @throws BackupError IO
 */
export async function reopened({ file }: EditedImage): Promise<EditedImage> {
  return await editedImage(await toOpenFile(file.path, file.handle))
}

async function editedImage(file: OpenFile): Promise<EditedImage> {
  const first = await readFirstCluster(file)
  const header = inFile(file.path, () => decodeHeader(first))
  const stored = await StoredRefcounts.open(file, header, () => {})
  const bitmaps = await readBitmaps(file, header)
  const stale = await readStaleBitmaps(file, header)
  return { file, header, first, stored, bitmaps, stale }
}

function requireClosed(path: string, { incompatibleFeatures }: Qcow2Header): void {
  if ((incompatibleFeatures & CORRUPT) !== 0n) {
    throw badImage(path, 'is marked as corrupt; repair it with check -r all first')
  }
  if ((incompatibleFeatures & DIRTY) !== 0n) {
    throw badImage(
      path,
      'was not closed cleanly, its refcounts may be stale; run check -r all first',
    )
  }
}
