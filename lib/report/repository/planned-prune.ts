import { isBackupError, throwIfAborted } from '../../errors.ts'
import type { MachineFolder } from '../../repository/machine-folder.ts'
import { preparePrune } from '../../repository/prune/prepare.ts'
import type { RetentionPolicy } from '../../repository/retention.ts'
import type { ReportedPrune } from './types.ts'

/**
 * What a prune would do, as far as tables of images tell. That it could not be done is an outcome, too.
 * @throws BackupError ABORTED
 */
export async function plannedPrune(
  folder: MachineFolder,
  policy: RetentionPolicy,
  signal?: AbortSignal,
): Promise<ReportedPrune> {
  try {
    const { groups, neededBytes } = await preparePrune(folder, policy, signal)
    return {
      remade: groups.reduce((sum, { joins }) => sum + joins.length, 0),
      neededBytes,
      freedBytes: groups.reduce((sum, group) => sum + group.freedBytes, 0),
    }
  } catch (error) {
    throwIfAborted(signal, folder.directory)
    if (!isBackupError(error) || error.code === 'INTERNAL') throw error
    return { remade: 0, neededBytes: 0, freedBytes: 0, failure: error.message }
  }
}
