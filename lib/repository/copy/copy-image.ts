import { hashImage } from '../../backup/content-hash.ts'
import { jobOptions } from '../../backup/job-options.ts'
import { contentFault } from '../../backup/recorded-content.ts'
import { requireSound } from '../../backup/verify-content.ts'
import { copyDisk } from '../../copy/job.ts'
import type { FileTarget } from '../../copy/target/file-target.ts'
import { openTarget } from '../../copy/target/open-target.ts'
import { BackupError, ioError } from '../../errors.ts'
import { type SourceFile, toOpenFile } from '../../image/file.ts'
import { native } from '../../native.ts'
import type { CopyOptions } from '../../options.ts'
import { openSource } from '../../source/open-source.ts'
import type { Source } from '../../source/source.ts'
import { metadataFault } from '../parent-images.ts'
import type { DiskRecord } from '../record.ts'

/** How an image is copied. */
export type CopyImageOptions = Omit<CopyOptions, 'force'>

/** A range of `cloneRanges` that is all of a file. */
const WHOLE = Float64Array.of(0, 0, 0)

/**
 * Copies an image byte for byte to a file without a name, and compares what was written with the image's record.
 * Where the file system can share blocks it shares them; else zeroes become holes.
 * @param from path
 * @param to path that it is to get
 * @returns to be published, and discarded
 * @throws BackupError DIFFERENT, BAD_IMAGE if the image is not as recorded, IN_USE, TARGET_EXISTS, IO, ABORTED
 */
export async function copyImage(
  from: string,
  to: string,
  disk: DiskRecord,
  options: CopyImageOptions,
): Promise<FileTarget> {
  // Its bytes, whatever they mean.
  const source = await openSource(from, { format: 'raw' })
  try {
    const target = await openTarget(to, { replaces: 'image', sources: source.stores })
    try {
      // Of a name that was free.
      const file = target as FileTarget
      await copyBytes(source, file, options)
      await requireRecorded(from, file, disk, options)
      return file
    } catch (error) {
      await target.discard()
      throw error
    }
  } finally {
    await source.close()
  }
}

async function copyBytes(
  source: Source,
  target: FileTarget,
  options: CopyImageOptions,
): Promise<void> {
  const [file] = source.stores as readonly SourceFile[]
  if ((await native().cloneRanges(file.handle.fd, target.handle.fd, WHOLE)) === 1) return
  await copyDisk(source, target, jobOptions('raw', source.size, options))
  await source.checkUnchanged()
  try {
    // A disk has whole sectors.
    await target.handle.truncate(file.size)
  } catch (error) {
    throw ioError(target.path, error)
  }
}

/**
 * Compares what was written with the record, and gives it the recorded time, by which it counts as
 * unmodified.
 * @throws BackupError DIFFERENT, BAD_IMAGE, UNSUPPORTED, IO, ABORTED
 */
async function requireRecorded(
  from: string,
  target: FileTarget,
  disk: DiskRecord,
  { engine, direct, requests, signal, onProgress }: CopyImageOptions,
): Promise<void> {
  // So that it is read from the disk, where the page cache is passed by.
  await target.sync()
  const file = await toOpenFile(from, target.handle)
  const fault = await metadataFault(file, disk)
  if (fault !== undefined) throw new BackupError('DIFFERENT', from, fault)
  const header = await requireSound(file, signal)
  const how = { engine, direct, requests, signal, onProgress }
  const { checksum, ...counts } = await hashImage(file, header, how)
  const difference = contentFault(disk, checksum, counts)
  if (difference !== undefined) throw new BackupError('DIFFERENT', from, difference)
  // Seconds, of which the system makes whole nanoseconds.
  const modified = (Date.parse(disk.modified) + 0.5) / 1000
  await target.handle.utimes(modified, modified).catch((error) => {
    throw ioError(target.path, error)
  })
}
