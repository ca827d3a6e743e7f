import { BackupError } from '../../errors.ts'
import { stat } from '../../files.ts'
import { findPoint, requireMachine } from '../find-point.ts'
import type { MachineFolder } from '../machine-folder.ts'
import { Repository } from '../repository.ts'
import { copyMachine, planMachine } from './copy-machine.ts'
import { ImageProgress } from './progress.ts'
import type { CopiedMachine, CopyRepositoryOptions, CopyRepositoryResult } from './types.ts'

/**
 * Copies what another repository lacks.
 * @param to path of that, which is made unless it is there
 * @throws BackupError USAGE if there is no such machine or point, BAD_TARGET if it is the same repository,
 * BAD_RECORD, UNSUPPORTED, IO, ABORTED
 */
export async function copyRepository(
  from: Repository,
  to: string,
  options: CopyRepositoryOptions = {},
): Promise<CopyRepositoryResult> {
  const started = performance.now()
  const { machine, point, dryRun, onProgress } = options
  if (machine !== undefined) await requireMachine(from, machine)
  if (machine !== undefined && point !== undefined) await findPoint(from, machine, point)
  const folders: MachineFolder[] = []
  for (const folder of machine === undefined ? await from.folders() : [from.machine(machine)]) {
    if (await folder.hasPoints()) folders.push(folder)
  }
  const target = dryRun ? await openIfAny(to) : await Repository.make(to)
  if (target) await requireApart(from, target)
  const planned: CopiedMachine[] = []
  for (const folder of dryRun || onProgress ? folders : []) {
    planned.push(await planMachine(folder, target, options))
  }
  const machines = dryRun ? planned : await copyAll(folders, target!, planned, options)
  return {
    complete: machines.every(({ failed }) => failed.length === 0),
    machines,
    elapsedSeconds: (performance.now() - started) / 1000,
  }
}

/** @param planned what there is to copy, if somebody wants to know how far it is */
async function copyAll(
  folders: readonly MachineFolder[],
  target: Repository,
  planned: readonly CopiedMachine[],
  options: CopyRepositoryOptions,
): Promise<CopiedMachine[]> {
  const points = planned.flatMap(({ copied }) => copied)
  const bytes = points.reduce((sum, { fileSize }) => sum + fileSize, 0)
  const progress = new ImageProgress(bytes, options.onProgress)
  const machines: CopiedMachine[] = []
  for (const folder of folders) {
    machines.push(await copyMachine(folder, target, options, progress))
  }
  progress.end()
  return machines
}

/** @returns undefined if there is nothing yet */
async function openIfAny(path: string): Promise<Repository | undefined> {
  try {
    return await Repository.open(path)
  } catch (error) {
    const { errno, code, what } = error as BackupError
    if (errno === 'ENOENT' || (code === 'BAD_RECORD' && what === path)) return undefined
    throw error
  }
}

/** @throws BackupError BAD_TARGET, IO */
async function requireApart(from: Repository, to: Repository): Promise<void> {
  const [a, b] = [await stat(from.directory), await stat(to.directory)]
  if (a.dev !== b.dev || a.ino !== b.ino) return
  throw new BackupError('BAD_TARGET', to.directory, 'is the repository that is copied')
}
