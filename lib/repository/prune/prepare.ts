import { ioError, throwIfAborted } from '../../errors.ts'
import { stat } from '../../files.ts'
import { Lineage } from '../lineage.ts'
import type { MachineFolder } from '../machine-folder.ts'
import { definitionName } from '../names.ts'
import type { PointRecord } from '../record.ts'
import { applyRetention, type RetentionPolicy, type RetentionVerdict } from '../retention.ts'
import { openJoin } from './join.ts'
import { type Join, type PruneGroup, planPrune } from './plan.ts'

/** A join, and the bytes that its image takes at most. */
export interface PreparedJoin extends Join {
  bytes: number
}

/** A group of points that go, and what that takes and gives, bytes on the file system. */
export interface PreparedGroup extends PruneGroup {
  joins: PreparedJoin[]
  /** Of each point the files that go with it. */
  files: Map<PointRecord, string[]>
  /** What the new images take, at most, while the old ones are still there. */
  neededBytes: number
  /** What is free afterwards, at least; below zero if the new ones take more. */
  freedBytes: number
  /** Guest bytes that are gone through. */
  work: number
}

/** What a prune of a machine will do. */
export interface PreparedPrune {
  /** Oldest first. */
  verdicts: RetentionVerdict<PointRecord>[]
  lineage: Lineage
  /** In the order in which they are done. */
  groups: PreparedGroup[]
  /** Bytes that have to be free beforehand. */
  neededBytes: number
}

/**
 * Finds out what a prune will do. Nothing is changed.
 * @throws BackupError BAD_IMAGE, BAD_RECORD if an image that has to be read is not as it was recorded; UNSUPPORTED,
 * IN_USE, IO, ABORTED
 */
export async function preparePrune(
  folder: MachineFolder,
  policy: RetentionPolicy,
  signal?: AbortSignal,
): Promise<PreparedPrune> {
  const points = await folder.points(signal)
  const verdicts = applyRetention(points, policy)
  const removed = new Set(verdicts.flatMap(({ point, keep }) => (keep ? [] : [point])))
  const kept = new Set(
    points.flatMap((point) => (removed.has(point) ? [] : point.disks.map(({ image }) => image))),
  )
  const lineage = new Lineage(points)
  const groups: PreparedGroup[] = []
  for (const group of planPrune(lineage, points, removed)) {
    throwIfAborted(signal, folder.directory)
    groups.push(await prepareGroup(folder, group, kept, signal))
  }
  // What goes with one group is there for the next.
  let [free, neededBytes] = [0, 0]
  for (const group of groups) {
    neededBytes = Math.max(neededBytes, group.neededBytes - free)
    free += group.freedBytes
  }
  return { verdicts, lineage, groups, neededBytes }
}

/** @param kept images that stay, whatever the record of a removed point names */
async function prepareGroup(
  { directory }: MachineFolder,
  group: PruneGroup,
  kept: ReadonlySet<string>,
  signal?: AbortSignal,
): Promise<PreparedGroup> {
  let [neededBytes, freedBytes, work] = [0, 0, 0]
  const joins: PreparedJoin[] = []
  for (const join of group.joins) {
    const { images, disk, bytes, close } = await openJoin(directory, join, signal)
    await close()
    joins.push({ ...join, bytes })
    neededBytes += bytes
    freedBytes += (await allocatedBytes(`${directory}/${join.disk.image}`)) - bytes
    work += images.reduce((sum, { header }) => sum + header.virtualSize, disk.size)
  }
  const files = new Map<PointRecord, string[]>()
  for (const point of group.remove) {
    const images = point.disks.map(({ image }) => image).filter((image) => !kept.has(image))
    files.set(point, [...images, definitionName(point.point)])
    for (const image of images) freedBytes += await allocatedBytes(`${directory}/${image}`)
  }
  return { ...group, joins, files, neededBytes, freedBytes, work }
}

/** Of a file, on the file system; none if it is not there. */
async function allocatedBytes(path: string): Promise<number> {
  try {
    return Number((await stat(path)).blocks) * 512
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0
    throw ioError(path, error)
  }
}
