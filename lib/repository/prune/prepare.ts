import { fullImageBytes } from '../../copy/image-size.ts'
import { Lineage } from '../lineage.ts'
import { definitionName } from '../names.ts'
import type { PointRecord } from '../record.ts'
import { applyRetention, type RetentionPolicy, type RetentionVerdict } from '../retention.ts'
import { type Join, type PruneGroup, planPrune } from './plan.ts'

/** A join, and the bytes that its image takes, about. */
export interface PreparedJoin extends Join {
  least: number
  most: number
}

/** Points that go together, and their files. */
export interface PreparedGroup extends PruneGroup {
  joins: PreparedJoin[]
  files: Map<PointRecord, string[]>
  /** Bytes on the file system of all that goes. */
  goneBytes: number
  /** What the new images take at most, while the old ones are there. */
  neededBytes: number
  /** What is free afterwards and was not before, at most. */
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
  /** Bytes that have to be free for a while, at most: of one group after the other. */
  neededBytes: number
  /** Bytes that are free afterwards and were not before, at most. */
  freedBytes: number
}

/** Of the disks of our own images. */
const LAYOUT = { clusterBits: 16 }

/**
 * Finds out by the records of a machine what a prune will do. No image is looked at: a year of hourly points has
 * thousands.
 * @param points all of the machine, oldest first
 * @throws BackupError BAD_RECORD if an image of a kept point builds on what is not there
 */
export function preparePrune(
  points: readonly PointRecord[],
  policy: RetentionPolicy,
): PreparedPrune {
  const verdicts = applyRetention(points, policy)
  const removed = new Set(verdicts.flatMap(({ point, keep }) => (keep ? [] : [point])))
  const kept = new Set(
    points.flatMap((point) => (removed.has(point) ? [] : point.disks.map(({ image }) => image))),
  )
  const lineage = new Lineage(points)
  const groups = planPrune(lineage, points, removed).map((group) => prepareGroup(group, kept))
  const neededBytes = groups.reduce((most, group) => Math.max(most, group.neededBytes), 0)
  const freedBytes = groups.reduce((sum, group) => sum + group.freedBytes, 0)
  return { verdicts, lineage, groups, neededBytes, freedBytes }
}

/** @param kept images that stay, whatever the record of a removed point names */
function prepareGroup(group: PruneGroup, kept: ReadonlySet<string>): PreparedGroup {
  const joins = group.joins.map((join) => ({ ...join, ...sizeOf(join) }))
  const files = new Map<PointRecord, string[]>()
  let goneBytes = joins.reduce((sum, { disk }) => sum + disk.allocatedBytes, 0)
  for (const point of group.remove) {
    const gone = point.disks.filter(({ image }) => !kept.has(image))
    files.set(point, [...gone.map(({ image }) => image), definitionName(point.point)])
    goneBytes += gone.reduce((sum, { allocatedBytes }) => sum + allocatedBytes, 0)
  }
  const work = joins.reduce((sum, { disk, chain, upper }) => {
    const read = chain.slice(0, upper).map((one) => one.disk.virtualSize)
    return read.reduce((all, size) => all + size, sum + disk.virtualSize)
  }, 0)
  const neededBytes = joins.reduce((sum, { most }) => sum + most, 0)
  const freedBytes = joins.reduce((rest, { least }) => rest - least, goneBytes)
  return { ...group, joins, files, goneBytes, neededBytes, freedBytes, work }
}

/** All that an image has may be hidden by those above it, and nothing of it. */
function sizeOf({ disk, chain, upper }: Join): { least: number; most: number } {
  let [least, all] = [0, 0]
  for (const { fileSize } of chain.slice(0, upper).map((one) => one.disk)) {
    least = Math.max(least, fileSize - all)
    all += fileSize
  }
  const most = Math.min(all, fullImageBytes(disk.virtualSize, LAYOUT))
  return { least: Math.min(least, most), most }
}
