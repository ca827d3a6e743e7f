import { quoted } from '../text.ts'
import type { DiskRecord, PointRecord } from './record.ts'

/** A disk of a point. */
export interface DiskAt {
  point: PointRecord
  disk: DiskRecord
}

/** Which image builds on which, as the records of a machine say. */
export class Lineage {
  readonly points: ReadonlyMap<string, PointRecord>

  constructor(points: readonly PointRecord[]) {
    this.points = new Map(points.map((one) => [one.point, one]))
  }

  /**
   * What an image builds on.
   * @returns undefined for one that stands alone; why what was there is not there
   */
  parentOf({ name, image, parent, parentId }: DiskRecord): DiskAt | string | undefined {
    if (parent === undefined) return undefined
    const point = this.points.get(parent)
    const builds = () => `on which ${quoted(image)} builds`
    if (!point) return `the point ${quoted(parent)}, ${builds()}, is gone`
    if (point.id !== parentId) {
      return `the point ${quoted(parent)} is another one than that ${builds()}`
    }
    const disk = point.disks.find((one) => one.name === name)
    return disk ? { point, disk } : `the point ${quoted(parent)}, ${builds()}, lacks the disk`
  }

  /**
   * How many images the longest chain of each point's disks has; 1: they stand alone.
   * @returns by the points' names; one of which a chain has a gap is left out
   */
  depths(): Map<string, number> {
    const ofImages = new Map<DiskRecord, number>()
    const ofPoints = new Map<string, number>()
    for (const { point, disks } of this.parentsFirst()) {
      let deepest = 0
      for (const disk of disks) {
        const parent = this.parentOf(disk)
        const below = typeof parent === 'object' ? ofImages.get(parent.disk) : undefined
        const depth = parent === undefined ? 1 : (below ?? Number.NaN) + 1
        ofImages.set(disk, depth)
        // NaN stays what it is.
        deepest = Math.max(deepest, depth)
      }
      if (!Number.isNaN(deepest)) ofPoints.set(point, deepest)
    }
    return ofPoints
  }

  /** All points, each after those that its images build on, whatever its clock said. */
  parentsFirst(): PointRecord[] {
    const begun = new Set<PointRecord>()
    const ordered: PointRecord[] = []
    for (const first of this.points.values()) {
      const stack = begun.has(first) ? [] : [first]
      while (stack.length > 0) {
        const at = stack[stack.length - 1]
        begun.add(at)
        const parents = at.disks.map(({ parent }) => this.points.get(parent ?? ''))
        // Records that are broken may go round in circles.
        const next = parents.find((one) => one && !begun.has(one))
        if (next) stack.push(next)
        else ordered.push(stack.pop()!)
      }
    }
    return ordered
  }

  /**
   * Points with all that their images build on.
   * @param names default: all points
   */
  withAncestors(names: Iterable<string> = this.points.keys()): Set<PointRecord> {
    const found = new Set([...names].flatMap((name) => this.points.get(name) ?? []))
    // A set goes on with what is added to it meanwhile.
    for (const { disks } of found) {
      for (const disk of disks) {
        const parent = this.parentOf(disk)
        if (typeof parent === 'object') found.add(parent.point)
      }
    }
    return found
  }
}
