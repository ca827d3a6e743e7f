import { BackupError } from '../errors.ts'
import type { Machine, MachineDisk } from '../machine/machine.ts'
import type { MachineFolder } from '../repository/machine-folder.ts'
import { ParentImages } from '../repository/parent-images.ts'
import type { DiskRecord, PointRecord } from '../repository/record.ts'
import { quoted } from '../text.ts'
import type { BackupMachineOptions } from './types.ts'

/** How a disk is backed up. */
export interface Decision {
  disk: MachineDisk
  kind: 'full' | 'incremental'
  reason?: string
  /** The backup that the new one is made over. */
  parent?: { point: PointRecord; disk: DiskRecord }
  /** The bitmap that recorded the changes since. An incremental backup without it compares the content. */
  since?: string
}

/**
 * Decides for each disk. Incremental is right only where a bitmap recorded all writes since a backup whose
 * images are as they were made.
 * @param points oldest first
 * @throws BackupError BAD_BITMAP if one cannot be incremental and all are to be; IO, ABORTED
 */
export async function decideAll(
  machine: Pick<Machine, 'title'>,
  disks: readonly MachineDisk[],
  folder: MachineFolder,
  points: readonly PointRecord[],
  options: Pick<BackupMachineOptions, 'full' | 'incremental' | 'rebuild' | 'signal'>,
): Promise<Decision[]> {
  const parents = new ParentImages(folder, points, { signal: options.signal })
  const decisions: Decision[] = []
  for (const disk of disks) {
    const decision = await decide(disk, points, parents, options)
    if (options.incremental && decision.kind === 'full') {
      const why = `cannot be backed up incrementally: ${decision.reason}`
      throw new BackupError('BAD_BITMAP', `${machine.title}, disk ${disk.name}`, why)
    }
    decisions.push(decision)
  }
  return decisions
}

async function decide(
  disk: MachineDisk,
  points: readonly PointRecord[],
  parents: ParentImages,
  { full, rebuild }: Pick<BackupMachineOptions, 'full' | 'rebuild'>,
): Promise<Decision> {
  if (full) return { disk, kind: 'full', reason: 'a full backup was asked for' }
  const backups = points.flatMap((point) => {
    const found = point.disks.find(({ name }) => name === disk.name)
    return found ? [{ point, disk: found }] : []
  })
  backups.reverse()
  if (backups.length === 0)
    return { disk, kind: 'full', reason: 'it is the first backup of this disk' }
  let reason: string | undefined
  for (const parent of backups) {
    const { bitmap } = parent.disk
    if (!bitmap) continue
    const fault = bitmapFault(disk, bitmap.name) ?? (await parents.fault(parent))
    if (fault === undefined) return { disk, kind: 'incremental', parent, since: bitmap.name }
    // Of the newest: the others were left by it.
    reason ??= fault
  }
  reason ??= disk.incremental.possible
    ? `no bitmap began with ${backups[0].point.point}`
    : disk.incremental.reason
  if (!rebuild) return { disk, kind: 'full', reason }
  for (const parent of backups) {
    if ((await parents.fault(parent)) !== undefined) continue
    const how = `what changed since ${parent.point.point} was found by comparing with it`
    return { disk, kind: 'incremental', parent, reason: `${reason}; ${how}` }
  }
  return { disk, kind: 'full', reason }
}

function bitmapFault({ bitmaps }: MachineDisk, name: string): string | undefined {
  const health = bitmaps.find((one) => one.name === name)
  if (!health) return `the bitmap ${quoted(name)} of the last backup is gone`
  if (health.valid) return undefined
  return `the bitmap ${quoted(name)} of the last backup cannot be used: ${health.reasons.join('; ')}`
}
