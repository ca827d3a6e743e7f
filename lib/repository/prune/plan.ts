import { BackupError } from '../../errors.ts'
import type { DiskAt, Lineage } from '../lineage.ts'
import type { DiskRecord, PointRecord } from '../record.ts'

/** An image that is made again, with what the removed ones below it hold. */
export interface Join {
  point: PointRecord
  disk: DiskRecord
  /** The image and all that it builds on, top first. */
  chain: readonly DiskAt[]
  /** How many of them become one: it and the removed ones right below it. */
  upper: number
}

/** Points that go together, and what has to be made before they can. Groups do not depend on each other. */
export interface PruneGroup {
  /** Newest first. */
  remove: PointRecord[]
  joins: Join[]
}

/**
 * Which images have to be made again so that points can be removed. Several removed ones in a row become part
 * of the image above them at once.
 * @param points all of a machine, oldest first
 * @param removed those to remove
 * @returns first the groups for which nothing has to be made, which give room to the others; then those
 * that are above others, whose images are still as recorded when they are done
 * @throws BackupError BAD_RECORD if an image of a kept point builds on what is not there
 */
export function planPrune(
  lineage: Lineage,
  points: readonly PointRecord[],
  removed: ReadonlySet<PointRecord>,
): PruneGroup[] {
  const groups = new Map<PointRecord, PruneGroup>()
  for (const point of points) {
    if (removed.has(point)) groups.set(point, { remove: [point], joins: [] })
  }
  const unite = (a: PointRecord, b: PointRecord) => {
    const [from, into] = [groups.get(a)!, groups.get(b)!].sort(
      (one, other) => one.remove.length - other.remove.length,
    )
    if (into === from) return
    into.remove.push(...from.remove)
    into.joins.push(...from.joins)
    for (const point of from.remove) groups.set(point, into)
  }
  for (const point of points) {
    const joins = removed.has(point) ? [] : joinsOf(point, lineage, removed)
    const [first, ...others] = joins.flatMap(({ chain, upper }) =>
      chain.slice(1, upper).map((below) => below.point),
    )
    for (const other of others) unite(first, other)
    groups.get(first)?.joins.push(...joins)
    // A record never stays without that of its parent.
    if (!removed.has(point)) continue
    for (const { parent } of point.disks) {
      const below = lineage.points.get(parent ?? '')
      if (below && removed.has(below)) unite(point, below)
    }
  }
  const order = new Map(points.map((point, i) => [point, i]))
  const all = [...new Set(groups.values())]
  for (const { remove } of all) remove.sort((a, b) => order.get(b)! - order.get(a)!)
  const isMade = ({ joins }: PruneGroup) => Number(joins.length > 0)
  const newest = ({ remove: [point] }: PruneGroup) => order.get(point)!
  return all.sort((a, b) => isMade(a) - isMade(b) || newest(b) - newest(a))
}

/** The images of a kept point that build on those of removed ones. */
function joinsOf(point: PointRecord, lineage: Lineage, removed: ReadonlySet<PointRecord>): Join[] {
  const joins: Join[] = []
  for (const disk of point.disks) {
    const below = lineage.points.get(disk.parent ?? '')
    if (!below || !removed.has(below)) continue
    const chain = chainOf({ point, disk }, lineage)
    const kept = chain.findIndex((one, i) => i > 0 && !removed.has(one.point))
    joins.push({ point, disk, chain, upper: kept < 0 ? chain.length : kept })
  }
  return joins
}

/** @throws BackupError BAD_RECORD */
function chainOf(top: DiskAt, lineage: Lineage): DiskAt[] {
  const chain = [top]
  for (;;) {
    const below = lineage.parentOf(chain[chain.length - 1].disk)
    if (below === undefined) return chain
    const { machine, point } = top.point
    const what = `${machine}@${point}, disk ${top.disk.name}`
    if (typeof below === 'string') throw new BackupError('BAD_RECORD', what, below)
    if (chain.some((one) => one.point === below.point)) {
      throw new BackupError('BAD_RECORD', what, 'builds on itself')
    }
    chain.push(below)
  }
}
