import { firstFault } from '../check/first-fault.ts'
import type { Target } from '../copy/target/target.ts'
import { BackupError, ioError, unsupported } from '../errors.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { readHeader } from '../format/qcow2/qcow2-image.ts'
import { type OpenFile, toOpenFile } from '../image/file.ts'
import { formatSize } from '../units.ts'
import { hashImage, type ReadBackOptions } from './content-hash.ts'
import type { ContentHash } from './types.ts'

/** Expected content of an image. */
export interface ExpectedContent {
  /** Bytes. */
  virtualSize: number
  content?: ContentHash
}

/**
 * Verifies an image before it gets its name.
 * @throws BackupError as `verifyContent`
 */
export async function verifyWritten(
  target: Target,
  expected: ExpectedContent,
  options: ReadBackOptions,
): Promise<void> {
  await verifyContent(await openWritten(target), expected, options)
}

/**
 * An image that was written and has no name yet, to be read.
 * @throws BackupError UNSUPPORTED, IO
 */
export async function openWritten({ path, handle }: Target): Promise<OpenFile> {
  if (!handle) throw unsupported(path, 'a target of this kind cannot be verified')
  try {
    // So that it is read from the disk, where the page cache is passed by.
    await handle.sync()
    return await toOpenFile(path, handle)
  } catch (error) {
    throw ioError(path, error)
  }
}

/**
 * Checks an image, reads its own clusters, and compares them with the data that a copy read.
 * @throws BackupError BAD_IMAGE if it is not sound, DIFFERENT if it does not match the data that was read,
 * UNSUPPORTED, IO, ABORTED
 */
async function verifyContent(
  file: OpenFile,
  { virtualSize, content }: ExpectedContent,
  options: ReadBackOptions,
): Promise<void> {
  const { path } = file
  const header = await requireSound(file, options.signal)
  if (header.virtualSize !== virtualSize) {
    const why = `holds a disk of ${formatSize(header.virtualSize)}, not ${formatSize(virtualSize)}`
    throw new BackupError('DIFFERENT', path, why)
  }
  const { checksum } = await hashImage(file, header, options)
  if (checksum === content?.checksum) return
  const why = `does not match the data that was read: its checksum is ${checksum}, not ${content?.checksum}`
  throw new BackupError('DIFFERENT', path, why)
}

/**
 * Checks the structure of an image that holds its data itself.
 * @throws BackupError BAD_IMAGE if it is not sound, UNSUPPORTED, IO, ABORTED
 */
export async function requireSound(file: OpenFile, signal?: AbortSignal): Promise<Qcow2Header> {
  const { path } = file
  const header = await readHeader(file)
  const fault = await firstFault(file, header, { leaks: true, signal })
  if (fault !== undefined) throw new BackupError('BAD_IMAGE', path, `is not sound: ${fault}`)
  if (header.externalDataFile) throw unsupported(path, 'its content is in another file')
  return header
}
