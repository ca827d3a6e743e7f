import { CONTROL_OPTIONS } from '../options.ts'
import type { PointRecord } from '../repository/record.ts'
import type { RestoreMachineOptions, RestoreMachineResult } from '../repository/restore-point.ts'
import {
  checkArgument,
  checkOptions,
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

/**
 * The points in time that a repository has: machine by machine, each one's oldest first.
 * @throws BackupError BAD_RECORD if it is none, or a record is broken; UNSUPPORTED, IO, USAGE, ABORTED
 */
export async function listRepository(
  repository: string,
  options: ListRepositoryOptions = {},
): Promise<PointRecord[]> {
  checkArgument('repository', PATH, repository)
  const { machine, signal } = checkOptions(LIST_OPTIONS, options)
  return await new Call(repository, signal).run(async () => {
    const { Repository } = await import('../repository/repository.ts')
    const opened = await Repository.open(repository)
    const points: PointRecord[] = []
    const machines = machine === undefined ? await opened.machines() : [machine]
    for (const name of machines) {
      signal?.throwIfAborted()
      points.push(...(await opened.machine(name).points()))
    }
    return points
  })
}

const { snapshot: _1, bitmap: _2, format: _3, ...COMMON_OPTIONS } = RESTORE_OPTIONS

export const RESTORE_MACHINE_OPTIONS: SchemaFor<RestoreMachineOptions> = {
  point: option(TEXT, 'the point in time', { fallback: 'the latest' }),
  disk: option(TEXT, 'only this disk'),
  ...COMMON_OPTIONS,
  ...CONTROL_OPTIONS,
}

/**
 * Restores a machine as it was at a point in time, from a repository.
 * @param target of one disk, a path or NBD URI as `restore` takes it; of several a directory, which is made
 * unless it is there, and gets a file for each disk, and the machine's definition
 * @throws BackupError BAD_RECORD, BAD_IMAGE if an image or one below it is not as recorded, and as `restore`;
 * disks that were restored before stay
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
