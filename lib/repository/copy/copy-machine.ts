import { type BackupError, ioError, throwIfAborted } from '../../errors.ts'
import { takeInventory } from '../inventory.ts'
import { Lineage } from '../lineage.ts'
import type { LockedMachine } from '../locked-machine.ts'
import type { MachineFolder } from '../machine-folder.ts'
import type { DiskRecord, PointRecord } from '../record.ts'
import type { Repository } from '../repository.ts'
import { rememberVerified, type VerifiedImage } from '../verified.ts'
import type { CopyImageOptions } from './copy-image.ts'
import { copyPoint } from './copy-point.ts'
import { type CopyPlan, planCopy, whyIncomplete } from './plan.ts'
import type { ImageProgress } from './progress.ts'
import type { CopiedMachine, CopiedPoint, CopyRepositoryOptions, NotCopied } from './types.ts'

/** Failures of the call, not of a machine. */
const OF_THE_CALL: readonly BackupError['code'][] = ['ABORTED', 'CALLBACK', 'INTERNAL']

/**
 * What would be copied of a machine.
 * @param target undefined: there is no such repository yet
 * @throws BackupError ABORTED
 */
export async function planMachine(
  source: MachineFolder,
  target: Repository | undefined,
  { point, signal }: CopyRepositoryOptions,
): Promise<CopiedMachine> {
  return await withFailures(source, async (result) => {
    const lineage = await lineageOf(source, result, point, signal)
    const there = (await target?.machine(source.machine).points(signal)) ?? []
    const { missing, present } = planCopy(lineage, there, point)
    result.present = present
    const known = new Map(there.map((one) => [one.point, one]))
    for (const record of missing) {
      const why = whyIncomplete(record, known)
      if (why !== undefined) {
        result.failed.push(notCopied(source, record, why))
        continue
      }
      known.set(record.point, record)
      result.copied.push(sizesOf(record))
    }
  })
}

/**
 * Copies what is missing of a machine. Its folder in the source is locked for readers, that in the target for
 * writing.
 * @throws BackupError ABORTED
 */
export async function copyMachine(
  source: MachineFolder,
  target: Repository,
  { point, dryRun: _1, machine: _2, onProgress, ...options }: CopyRepositoryOptions,
  progress: ImageProgress,
): Promise<CopiedMachine> {
  const { signal } = options
  return await withFailures(source, async (result) => {
    const lock = await source.readLock({ signal, onProgress })
    try {
      const lineage = await lineageOf(source, result, point, signal)
      if (lineage.points.size === 0) return
      const folder = await target.lock(source.machine)
      try {
        await folder.clean()
        const there = await folder.points(signal)
        const plan = planCopy(lineage, there, point)
        result.present = plan.present
        const optionsOf = (disk: DiskRecord) => ({ ...options, onProgress: progress.of(disk) })
        await copyMissing(source, folder, { ...plan, there }, optionsOf, result)
      } finally {
        await folder.close()
      }
    } finally {
      await lock.release()
    }
  })
}

/** Copies point by point. One that is not as recorded leaves out those that build on it, and no others. */
async function copyMissing(
  source: MachineFolder,
  target: LockedMachine,
  { missing, there }: CopyPlan & { there: readonly PointRecord[] },
  optionsOf: (disk: DiskRecord) => CopyImageOptions,
  result: CopiedMachine,
): Promise<void> {
  const known = new Map(there.map((one) => [one.point, one]))
  const verified = new Map<string, VerifiedImage>()
  try {
    for (const record of missing) {
      const why = whyIncomplete(record, known)
      if (why !== undefined) {
        result.failed.push(notCopied(source, record, why))
        continue
      }
      try {
        result.copied.push(await copyPoint(record, source, target, optionsOf))
      } catch (error) {
        const failure = ioError(target.directory, error)
        if (!isOfSource(failure, source)) throw failure
        const { code, message: difference } = failure
        result.failed.push({ point: record.point, code, difference })
        continue
      }
      known.set(record.point, record)
      const time = new Date().toISOString()
      for (const { image, content } of record.disks) {
        verified.set(image, { time, same: true, checksum: content.checksum })
      }
    }
  } finally {
    // What cannot be remembered is verified once more.
    if (verified.size > 0) await rememberVerified(target, verified).catch(() => {})
  }
}

/** Whether a failure is about a file of the source: others may be good. */
function isOfSource({ code, what }: BackupError, { directory }: MachineFolder): boolean {
  return !OF_THE_CALL.includes(code) && what.startsWith(`${directory}/`)
}

/** Does the work for a machine. What ends it is told in the result, and other machines go on. */
async function withFailures(
  { machine, directory }: MachineFolder,
  work: (result: CopiedMachine) => Promise<void>,
): Promise<CopiedMachine> {
  const result: CopiedMachine = { machine, copied: [], present: 0, failed: [] }
  try {
    await work(result)
  } catch (error) {
    const failure = ioError(directory, error)
    if (OF_THE_CALL.includes(failure.code)) throw failure
    result.failed.push({ code: failure.code, difference: failure.message })
  }
  return result
}

/** All points of the source that can be read; others have failed, where they are wanted. */
async function lineageOf(
  source: MachineFolder,
  { failed }: CopiedMachine,
  wanted: string | undefined,
  signal: AbortSignal | undefined,
): Promise<Lineage> {
  try {
    return new Lineage(await source.points(signal))
  } catch (error) {
    throwIfAborted(signal, source.directory)
    // One by one.
    const { points, broken } = await takeInventory(source, signal)
    if (broken.length === 0) throw error
    for (const { point, error } of broken) {
      if (wanted !== undefined && wanted !== point) continue
      failed.push({ point, code: error.code, difference: error.message })
    }
    return new Lineage(points)
  }
}

function notCopied({ machine }: MachineFolder, { point }: PointRecord, why: string): NotCopied {
  return { point, code: 'BAD_IMAGE', difference: `${machine}@${point}: ${why}` }
}

function sizesOf({ point, disks }: PointRecord): CopiedPoint {
  const sum = (of: (disk: DiskRecord) => number) => disks.reduce((all, disk) => all + of(disk), 0)
  return {
    point,
    fileSize: sum(({ fileSize }) => fileSize),
    allocatedBytes: sum(({ allocatedBytes }) => allocatedBytes),
  }
}
