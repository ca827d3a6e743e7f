import { extentsImageBytes, fullImageBytes, plannedImageBytes } from '../copy/image-size.ts'
import type { JobOptions } from '../copy/job.ts'
import type { Target } from '../copy/target/target.ts'
import { BackupError } from '../errors.ts'
import type { Source } from '../source/source.ts'
import { formatSize } from '../units.ts'

/**
 * Makes sure that what a target can hold is enough, before what it holds is overwritten. How much
 * compression saves shows only later, so an image has to fit without it.
 * @throws BackupError BAD_TARGET; as the pieces of the source
 */
export async function requireRoom(
  source: Source,
  { path, capacity, inPlace }: Pick<Target, 'path' | 'capacity' | 'inPlace'>,
  job: JobOptions,
): Promise<void> {
  if (capacity === undefined) return
  if (job.format === 'raw') return requireCapacity(path, capacity, source.size, 'the disk needs')
  if (!inPlace || fullImageBytes(source.size, job) <= capacity) return
  const planned = await plannedImageBytes(source, job)
  if (planned > capacity && (await fitsWithoutZeroes(source, job, capacity))) return
  requireCapacity(path, capacity, planned, 'the image may need')
}

/** @throws BackupError BAD_TARGET */
export function requireCapacity(path: string, capacity: number, bytes: number, what: string): void {
  if (capacity >= bytes) return
  const why = `holds ${formatSize(capacity)}, ${what} ${formatSize(bytes)}`
  throw new BackupError('BAD_TARGET', path, why)
}

/** Reads a disk to find out whether what it holds besides zeroes fits: devices know of no holes. */
async function fitsWithoutZeroes(
  source: Source,
  job: JobOptions,
  capacity: number,
): Promise<boolean> {
  if (job.backingSize !== undefined) return false
  if (!source.canDetectZeroes) return false
  const extents = source.extents({ detectZeroes: true })
  return (await extentsImageBytes(source.size, extents, job, capacity)) <= capacity
}
