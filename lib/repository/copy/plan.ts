import { BackupError } from '../../errors.ts'
import { listed, quoted } from '../../text.ts'
import type { Lineage } from '../lineage.ts'
import type { PointRecord } from '../record.ts'

const MAX_LISTED = 5

/** What a machine's copy lacks. */
export interface CopyPlan {
  /** Each after those that its images build on. */
  missing: PointRecord[]
  /** How many of the points that are asked for are there. */
  present: number
}

/**
 * Compares the points of a machine in two repositories: by their ids, as a name can be given twice.
 * @param source of all points there
 * @param target all points there
 * @param point only this one, with all that its images build on
 * @throws BackupError USAGE if there is no such point, TARGET_EXISTS if the target has another one of a name
 */
export function planCopy(
  source: Lineage,
  target: readonly PointRecord[],
  point: string | undefined,
): CopyPlan {
  const wanted = source.withAncestors(point === undefined ? undefined : [point])
  const ids = new Map(target.map((one) => [one.point, one.id]))
  const missing: PointRecord[] = []
  const others: PointRecord[] = []
  for (const one of source.parentsFirst()) {
    if (!wanted.has(one) || ids.get(one.point) === one.id) continue
    if (ids.has(one.point)) others.push(one)
    else missing.push(one)
  }
  if (others.length === 0) return { missing, present: wanted.size - missing.length }
  const [{ machine }] = others
  const names = listed(others, MAX_LISTED, (one) => quoted(one.point))
  const why = `the target has other points of the same names: ${names}; nothing of the machine was copied`
  throw new BackupError('TARGET_EXISTS', machine, why)
}

/**
 * Why a point cannot be copied: an image that it builds on is not there.
 * @param there the points that the target has, by their names
 */
export function whyIncomplete(
  { disks }: PointRecord,
  there: ReadonlyMap<string, PointRecord>,
): string | undefined {
  for (const { name, image, parent, parentId } of disks) {
    if (parent === undefined) continue
    const found = there.get(parent)
    const hasDisk = found?.id === parentId && found?.disks.some((disk) => disk.name === name)
    if (!hasDisk)
      return `the point ${quoted(parent)}, on which ${quoted(image)} builds, is not there`
  }
  return undefined
}
