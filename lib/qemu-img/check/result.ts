import type { CheckResult } from '../../check/report.ts'

/** What a check found; after a repair, what it left. */
export interface ImageCheck extends CheckResult {
  /** As QEMU names it. */
  filename: string
  format: 'qcow2'
}
