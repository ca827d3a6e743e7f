import { throwIfAborted } from '../../errors.ts'
import type { ControlOptions } from '../../options.ts'
import { requireMachine } from '../find-point.ts'
import type { MachineFolder } from '../machine-folder.ts'
import type { Repository } from '../repository.ts'
import { repairMachine } from './repair-machine.ts'
import type { RepairStep } from './step.ts'

/** Options of `repairRepository`. */
export interface RepairRepositoryOptions extends ControlOptions {
  /** Only these. Default: all. */
  machines?: readonly string[]
  /** Change nothing, and tell what would be done. */
  dryRun?: boolean
}

/**
 * Puts right what can be without losing anything, one step after the other.
 * @throws BackupError USAGE if there is no such machine; IO, ABORTED
 */
export async function* repairRepository(
  repository: Repository,
  { machines, dryRun = false, signal, onProgress }: RepairRepositoryOptions = {},
): AsyncGenerator<RepairStep, void, undefined> {
  for (const folder of await foldersOf(repository, machines)) {
    throwIfAborted(signal, folder.directory)
    yield* repairMachine(folder, { dryRun, signal, onProgress })
  }
}

/** Those that have files. @throws BackupError USAGE, IO, BAD_RECORD */
async function foldersOf(
  repository: Repository,
  machines: readonly string[] | undefined,
): Promise<MachineFolder[]> {
  if (!machines) return await repository.folders()
  const folders: MachineFolder[] = []
  for (const machine of machines) {
    const folder = repository.machine(machine)
    if ((await folder.files()).length === 0) await requireMachine(repository, machine)
    folders.push(folder)
  }
  return folders
}
