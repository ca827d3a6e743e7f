import type { ImageLayout } from '../copy/image-size.ts'
import { extentsImageBytes, fullImageBytes, plannedImageBytes } from '../copy/image-size.ts'
import type { TargetFormat } from '../copy/spec.ts'
import type { Target } from '../copy/target/target.ts'
import { BackupError } from '../errors.ts'
import type { Source } from '../source/source.ts'
import { formatSize } from '../units.ts'

/**
 * Makes sure that a target is large enough before its old content is overwritten. How much
 * compression saves shows only later, so an image has to fit without it.
 * @throws BackupError BAD_TARGET; as the mappings of the source
 */
export async function requireRoom(
  source: Source,
  { path, capacity, inPlace }: Pick<Target, 'path' | 'capacity' | 'inPlace'>,
  format: TargetFormat,
): Promise<void> {
  if (capacity === undefined) return
  if (format.kind !== 'qcow2') {
    return requireCapacity(path, capacity, source.size, 'the disk needs')
  }
  if (!inPlace || fullImageBytes(source.size, format) <= capacity) return
  const planned = await plannedImageBytes(source, format)
  if (planned > capacity && (await fitsWithoutZeroes(source, format, capacity))) return
  requireCapacity(path, capacity, planned, 'the image may need')
}

/** @throws BackupError BAD_TARGET */
export function requireCapacity(path: string, capacity: number, bytes: number, what: string): void {
  if (capacity >= bytes) return
  const why = `holds ${formatSize(capacity)}, ${what} ${formatSize(bytes)}`
  throw new BackupError('BAD_TARGET', path, why)
}

/** Reads a disk to find out whether its nonzero content fits: devices do not report holes. */
async function fitsWithoutZeroes(
  source: Source,
  image: ImageLayout,
  capacity: number,
): Promise<boolean> {
  if (image.backing) return false
  if (!source.canDetectZeroes) return false
  const extents = source.extents({ detectZeroes: true })
  return (await extentsImageBytes(source.size, extents, image, capacity)) <= capacity
}
