import { CONTROL_OPTIONS } from '../options.ts'
import type { PointRecord } from '../repository/record.ts'
import type { RepairRepositoryOptions } from '../repository/repair/repair-repository.ts'
import type { RepairStep } from '../repository/repair/step.ts'
import type { RestoreMachineOptions, RestoreMachineResult } from '../repository/restore-point.ts'
import type { Verified } from '../repository/verified.ts'
import {
  BOOLEAN,
  checkArgument,
  checkOptions,
  list,
  option,
  PATH,
  type SchemaFor,
  SIGNAL,
  TEXT,
} from '../schema.ts'
import { RESTORE_OPTIONS } from './backup.ts'
import { Call } from './call.ts'
import { TARGET } from './rules.ts'

/** Options of `listRepository`. */
export interface ListRepositoryOptions {
  /** Only this machine's points. */
  machine?: string
  signal?: AbortSignal
}

const LIST_OPTIONS: SchemaFor<ListRepositoryOptions> = {
  machine: option(TEXT, "only this machine's points"),
  signal: option(SIGNAL, 'stops the call'),
}

/** A point in time that a repository has. */
export interface ListedPoint extends PointRecord {
  /**
   * When its images, and all that they build on, were last read and compared with their records: the oldest
   * of these times, or if one was not as recorded, when that was found. Missing if one was never read.
   */
  verified?: Verified
  /** Images of the longest chain of its disks, 1: none builds on another; missing if one of them is gone. */
  depth?: number
}

/**
 * The points in time that a repository has: machine by machine, each one's oldest first.
 * @throws BackupError BAD_RECORD if it is none, or a record is broken; UNSUPPORTED, IO, USAGE, ABORTED
 */
export async function listRepository(
  repository: string,
  options: ListRepositoryOptions = {},
): Promise<ListedPoint[]> {
  checkArgument('repository', PATH, repository)
  const { machine, signal } = checkOptions(LIST_OPTIONS, options)
  return await new Call(repository, signal).run(async () => {
    const { Lineage } = await import('../repository/lineage.ts')
    const { requireMachine } = await import('../repository/find-point.ts')
    const { Repository } = await import('../repository/repository.ts')
    const { readVerified, verifiedPoints } = await import('../repository/verified.ts')
    const opened = await Repository.open(repository)
    const listed: ListedPoint[] = []
    if (machine !== undefined) await requireMachine(opened, machine)
    const folders = machine === undefined ? await opened.folders() : [opened.machine(machine)]
    for (const folder of folders) {
      signal?.throwIfAborted()
      const points = await folder.points(signal)
      const lineage = new Lineage(points)
      const depths = lineage.depths()
      const outcomes = verifiedPoints(lineage, await readVerified(folder))
      for (const one of points) {
        const found = { depth: depths.get(one.point), verified: outcomes.get(one.point) }
        listed.push(Object.assign(one, found))
      }
    }
    return listed
  })
}

const { snapshot: _1, bitmap: _2, format: _3, verify: _4, ...COMMON_OPTIONS } = RESTORE_OPTIONS

export const RESTORE_MACHINE_OPTIONS: SchemaFor<RestoreMachineOptions> = {
  point: option(TEXT, 'the point in time', { fallback: 'the latest' }),
  disk: option(TEXT, 'only this disk'),
  verify: option(BOOLEAN, 'also check each image of the chain before it is read', {
    off: 'compare no content with the hashes in the records',
  }),
  ...COMMON_OPTIONS,
  ...CONTROL_OPTIONS,
}

/**
 * Restores a machine as it was at a point in time, from a repository.
 * @param target of one disk, a path or NBD URI as `restore` takes it; of several, or if it ends in `/` or is
 * one, a directory, which is made unless it is there, and gets a file for each disk, and with all disks the
 * machine's definition: all of them, or none
 * @throws BackupError BAD_RECORD, BAD_IMAGE if an image or one below it is not the one that was recorded,
 * DIFFERENT if its content is not, and as `restore`; an existing target is then unchanged, except a device or
 * an export
 */
export async function restoreMachine(
  repository: string,
  machine: string,
  target: string,
  options: RestoreMachineOptions = {},
): Promise<RestoreMachineResult> {
  checkArgument('repository', PATH, repository)
  checkArgument('machine', TEXT, machine)
  checkArgument('target', TARGET, target)
  const checked = checkOptions(RESTORE_MACHINE_OPTIONS, options)
  const call = new Call(target, checked.signal)
  const onProgress = call.callback('onProgress', checked.onProgress)
  return await call.run(async () => {
    const { Repository } = await import('../repository/repository.ts')
    const { restorePoint } = await import('../repository/restore-point.ts')
    return await restorePoint(await Repository.open(repository), machine, target, {
      ...checked,
      onProgress,
    })
  })
}

export const REPAIR_OPTIONS: SchemaFor<RepairRepositoryOptions> = {
  machines: option({ ...list(TEXT), form: 'none' }, 'only these machines'),
  dryRun: option(BOOLEAN, 'change nothing, and tell what would be done'),
  ...CONTROL_OPTIONS,
}

/**
 * Puts right in a repository what can be without losing anything: removes what killed runs left, and makes the
 * records of images that have none, or none that can be read, where all that others rely on follows from the
 * images and the other records. What it cannot put right it names. A machine's folder is locked as for a backup.
 * @throws BackupError BAD_RECORD if it is no repository, UNSUPPORTED, IO, ABORTED, USAGE
 */
export async function* repairRepository(
  repository: string,
  options: RepairRepositoryOptions = {},
): AsyncGenerator<RepairStep, void, undefined> {
  checkArgument('repository', PATH, repository)
  const checked = checkOptions(REPAIR_OPTIONS, options)
  const call = new Call(repository, checked.signal)
  const onProgress = call.callback('onProgress', checked.onProgress)
  const { Repository } = await import('../repository/repository.ts')
  const { repairRepository: run } = await import('../repository/repair/repair-repository.ts')
  yield* call.each(async function* () {
    yield* run(await Repository.open(repository), { ...checked, onProgress })
  })
}
