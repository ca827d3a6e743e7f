import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import type { OpenFile } from '../image/file.ts'
import { log } from '../log.ts'
import type { ControlOptions } from '../options.ts'
import { checkCopied } from './copied.ts'
import type { Say } from './finding.ts'
import { compareRefcounts } from './refcount-comparison.ts'
import { survey } from './reference-survey.ts'
import { type CheckResult, Report } from './report.ts'
import { checkSnapshotTable } from './snapshot-table.ts'

/**
 * Checks a qcow2 image: its refcounts against the references in its tables, and the flags that follow
 * from them (`qcow2_co_check`).
 * @throws CheckFailed if it cannot be done
 */
export async function checkQcow2(
  file: OpenFile,
  header: Qcow2Header,
  say: Say,
  control: ControlOptions = {},
): Promise<CheckResult> {
  const report = new Report(say, file, control)
  const table = await checkSnapshotTable(file, header, report)
  const { snapshots, size } = table
  const checked = { file, header, snapshots, snapshotsSize: size }
  const { stored, counts, allCopied } = await survey(checked, report)
  const { highest } = await compareRefcounts(stored, counts, report)
  // Where nothing is wrong and nothing is shared, each refcount is 0 or 1: the flags are right.
  const { result } = report
  const faults = result.corruptions + result.leaks + result.checkErrors
  if (faults > 0 || counts.shared || !allCopied) await checkCopied(checked, stored, report)
  log('check', () => {
    const { corruptions, leaks, checkErrors } = result
    const flags = faults > 0 || counts.shared || !allCopied ? 'looked at' : 'follow from the rest'
    const found = `${corruptions} corruptions, ${leaks} leaks, ${checkErrors} errors`
    return `${file.path}: ${found}; COPIED flags ${flags}`
  })
  report.result.imageEndOffset = (highest + 1) * header.clusterSize
  return report.result
}
