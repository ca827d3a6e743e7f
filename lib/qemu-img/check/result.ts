import type { CheckResult } from '../../check/report.ts'

/** Result of a check; after a repair, the remaining faults. Counts are of clusters. */
export interface ImageCheck extends CheckResult {
  /** As QEMU names it. */
  filename: string
  format: 'qcow2'
}
