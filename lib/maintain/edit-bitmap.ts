import { Bits } from '../edit/bits.ts'
import { type EditedImage, openToEdit, prepareEdit, stateOf } from '../edit/edited-image.ts'
import { BackupError } from '../errors.ts'
import { type OpenFile, toOpenFile } from '../image/file.ts'
import type { ImageDisk } from '../image/steps.ts'
import { requireApart, type StorageFile } from '../image/storage.ts'
import type { ControlOptions } from '../options.ts'
import { Turns } from '../turns.ts'
import { type AddedBitmap, BitmapEdit, type BitmapOperation } from './bitmap-edit.ts'

export type { AddedBitmap, BitmapOperation } from './bitmap-edit.ts'

export interface EditBitmapOptions extends ControlOptions {
  /** How the image is written to; for tests. */
  disk?: (image: EditedImage) => ImageDisk
}

/**
 * Does several things to one bitmap of an image, in their order; all of them or, if one fails, none.
 * The image is checked first, and no other process may use it meanwhile.
 * @param path of a qcow2 image of version 3
 * @throws BackupError BAD_BITMAP if an operation cannot be done, with QEMU's words in `qemu`;
 * BAD_IMAGE, UNSUPPORTED, IN_USE, IO, USAGE, ABORTED: the image is as it was then
 */
export async function editBitmap(
  path: string,
  name: string,
  operations: readonly BitmapOperation[],
  options: EditBitmapOptions = {},
): Promise<void> {
  const { signal, onProgress } = options
  const image = await openToEdit(path, { signal, onProgress })
  try {
    const edit = new BitmapEdit(image, name, { signal, onProgress })
    for (const operation of operations) {
      await edit.run(operation).catch((error) => {
        throw error instanceof BackupError && error.code === 'BAD_BITMAP'
          ? new BitmapOperationError(operation.kind, error)
          : error
      })
    }
    if (operations.length > 0) await edit.store(options.disk?.(image))
    edit.told()
  } finally {
    await image.file.handle.close()
  }
}

/** An operation on a bitmap by its name. */
export interface NamedOperation {
  name: string
  operation: BitmapOperation
}

/**
 * Does operations on several bitmaps of an image, in their order; all of them or, if one fails, none.
 * @param file open for writing, and locked against all other use; stays open
 * @param sound result of the edit before, under the same lock: the image is then not checked again
 * @returns the state in which it leaves the image, for the next edit
 * @throws BackupError BAD_BITMAP if an operation cannot be done; BAD_IMAGE, UNSUPPORTED, IO, ABORTED
 */
export async function editBitmaps(
  file: OpenFile,
  operations: readonly NamedOperation[],
  { signal, sound }: { signal?: AbortSignal; sound?: string } = {},
): Promise<string | undefined> {
  if (operations.length === 0) return sound
  const image = await prepareEdit(await toOpenFile(file.path, file.handle), { signal }, sound)
  let edit: BitmapEdit | undefined
  for (const { name, operation } of operations) {
    edit = new BitmapEdit(image, name, { signal }, edit)
    await edit.run(operation)
  }
  await edit!.store()
  return await stateOf(file)
}

/**
 * Adds a bitmap whose bits have to be found out first. No other process may use the image meanwhile.
 * @param fill sets the bits
 * @returns its result
 * @throws BackupError as editBitmap; exceptions of `fill`
 */
export async function addBitmap(
  path: string,
  { name, granularity, recording }: AddedBitmap,
  fill: (bits: Bits, file: OpenFile) => Promise<void>,
  signal?: AbortSignal,
): Promise<{ granularity: number; dirtyBytes: number }> {
  const image = await openToEdit(path, { signal })
  try {
    const edit = new BitmapEdit(image, name, { signal })
    // Whether it can be is known before the work begins.
    await edit.run({ kind: 'add', granularity })
    const bits = edit.emptyBits()
    await fill(bits, image.file)
    edit.fill(bits, recording)
    await edit.store()
    const dirtyBytes = await bits.dirtyBytes(new Turns(path, signal))
    return { granularity: bits.granularity, dirtyBytes }
  } finally {
    await image.file.handle.close()
  }
}

/**
 * Sets bits in a bitmap of an image, which is added if there is none.
 * @param bits of a disk of the same size
 * @throws BackupError as editBitmap
 */
export async function mergeIntoBitmap(
  path: string,
  { name, granularity, recording }: AddedBitmap,
  bits: Bits,
  signal?: AbortSignal,
): Promise<void> {
  const image = await openToEdit(path, { signal })
  try {
    const edit = new BitmapEdit(image, name, { signal })
    await edit.mergeBits(bits, { granularity, recording })
    await edit.store()
  } finally {
    await image.file.handle.close()
  }
}

/**
 * Checks whether mergeIntoBitmap will do: comparing disks takes its time.
 * @param size of the disk, bytes
 * @param read the files compared, none of which may be the image
 * @throws BackupError as it would; BAD_TARGET if the image is on the storage of a file read
 */
export async function requireMergeable(
  path: string,
  added: AddedBitmap,
  size: number,
  read: readonly (StorageFile & { path: string })[],
  signal?: AbortSignal,
): Promise<void> {
  const image = await openToEdit(path, { signal })
  try {
    await requireApart(image.file, read)
    const nothing = new Bits(size, 2 ** 31, image.header.clusterSize)
    await new BitmapEdit(image, added.name, { signal }).mergeBits(nothing, added)
  } finally {
    await image.file.handle.close()
  }
}

/** An operation on a bitmap that cannot be done. */
export class BitmapOperationError extends BackupError {
  readonly operation: BitmapOperation['kind']

  constructor(operation: BitmapOperation['kind'], { what, why, qemu }: BackupError) {
    super('BAD_BITMAP', what, why, { qemu })
    this.operation = operation
  }
}
