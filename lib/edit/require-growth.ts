import { unsupported } from '../errors.ts'
import type { EditedImage } from './edited-image.ts'

/**
 * Checks whether the disk of an image can become as large as `size` bytes. Internal snapshots of
 * version 2 do not record the size of their disks, so a snapshot would get another size than
 * it had: QEMU does not resize such an image either. Where an entry of version 3 leaves the size out,
 * the image is corrupt, and was refused before.
 * @throws BackupError UNSUPPORTED if it cannot
 */
export function requireGrowth({ file, header }: EditedImage, size: number): void {
  if (size <= header.virtualSize || header.nbSnapshots === 0 || header.version >= 3) return
  const growth = `its disk cannot grow from ${header.virtualSize} to ${size} bytes`
  throw unsupported(file.path, `is of version 2 and has internal snapshots, so ${growth}`)
}
