import type { Inventory } from '../../repository/inventory.ts'
import type { VerifiedImages } from '../../repository/verified.ts'
import type { ReportedPrune } from './types.ts'

/** What a machine's folder has. */
export interface MachineFacts {
  machine: string
  inventory: Inventory
  /** Names of all files. */
  files: ReadonlySet<string>
  verified: VerifiedImages
  /** If there is a policy. */
  prune?: ReportedPrune
}
