import type { MachineDisk } from '../machine/machine.ts'
import type { PointRecord } from '../repository/record.ts'
import type { DiskBackup } from './types.ts'

/**
 * Bitmaps of earlier points that no later backup needs: each disk that has one has a newer one by this
 * backup. Bitmaps that no record names are others', and stay.
 * @param points the earlier ones
 * @param disks all of the machine, as they were before
 * @param stored those of this backup
 */
export function obsoleteBitmaps(
  points: readonly PointRecord[],
  disks: readonly MachineDisk[],
  stored: readonly Pick<DiskBackup, 'name' | 'bitmap'>[],
): string[] {
  const has = (disk: string, bitmap: string) =>
    disks.some(({ name, bitmaps }) => name === disk && bitmaps.some((one) => one.name === bitmap))
  const isRenewed = (disk: string) => stored.some(({ name, bitmap }) => name === disk && bitmap)
  const obsolete = new Set<string>()
  const needed = new Set<string>()
  for (const { name, bitmap } of points.flatMap((point) => point.disks)) {
    if (!bitmap || !has(name, bitmap.name)) continue
    if (isRenewed(name)) obsolete.add(bitmap.name)
    else needed.add(bitmap.name)
  }
  return [...obsolete].filter((bitmap) => !needed.has(bitmap))
}
