import { isBackupError } from '../../errors.ts'
import type { Inventory } from '../../repository/inventory.ts'
import { preparePrune } from '../../repository/prune/prepare.ts'
import type { RetentionPolicy } from '../../repository/retention.ts'
import type { ReportedPrune } from './types.ts'

/** What a prune of a machine would do, as records tell. That it could not be done is an outcome, too. */
export function plannedPrune(
  { points, broken: [broken] }: Inventory,
  policy: RetentionPolicy,
): ReportedPrune {
  try {
    // Others may build on it.
    if (broken) throw broken.error
    const { groups, neededBytes, freedBytes } = preparePrune(points, policy)
    const remade = groups.reduce((sum, { joins }) => sum + joins.length, 0)
    return { remade, neededBytes, freedBytes }
  } catch (error) {
    if (!isBackupError(error) || error.code === 'INTERNAL') throw error
    return { remade: 0, neededBytes: 0, freedBytes: 0, failure: error.message }
  }
}
