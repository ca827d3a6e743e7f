import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import type { OpenFile } from '../image/file.ts'
import type { ControlOptions } from '../options.ts'
import { checkQcow2 } from './check.ts'
import { type Finding, findingText } from './finding.ts'
import { CheckFailed } from './report.ts'

/**
 * The first finding of a check; undefined if the image is sound.
 * @param leaks whether a leaked cluster is a fault, which does no harm
 * @throws BackupError as the check does
 */
export async function firstFault(
  file: OpenFile,
  header: Qcow2Header,
  { leaks, ...control }: { leaks: boolean } & ControlOptions,
): Promise<string | undefined> {
  let first: string | undefined
  const say = (finding: Finding) => {
    if (leaks || finding.text.startsWith('ERROR')) first ??= findingText(finding)
  }
  try {
    const result = await checkQcow2(file, header, say, control)
    const faults = result.corruptions + result.checkErrors + (leaks ? result.leaks : 0)
    return faults === 0 ? undefined : (first ?? 'see check')
  } catch (error) {
    if (!(error instanceof CheckFailed)) throw error
    return first ?? error.why
  }
}
