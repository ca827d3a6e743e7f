import type { Finding } from '../../check/finding.ts'
import type { CheckResult } from '../../check/report.ts'
import { corruptionText } from '../chain-node.ts'
import type { JsonValue } from '../json.ts'
import { errorLine } from '../messages.ts'
import { describeImageError } from '../strerror.ts'
import type { ImageCheck } from './result.ts'

/** A finding as `qemu-img check` prints it, with its line feed. */
export function findingToText({ kind, text, cause }: Finding): string {
  const line = cause ? `${text}: ${describeImageError(cause)}` : text
  if (kind === 'message') return errorLine(line)
  return kind === 'corrupt' ? corruptionText(line) : `${line}\n`
}

/** The result of a repair, for people, as `qemu-img check -r` prints it. */
export function repairedToText({ leaksFixed, corruptionsFixed }: CheckResult): string {
  return (
    'The following inconsistencies were found and repaired:\n\n' +
    `    ${leaksFixed} leaked clusters\n    ${corruptionsFixed} corruptions\n\n` +
    'Double checking the fixed image now...\n'
  )
}

/** The result of a check, for people, as `qemu-img check` prints it. */
export function checkToText(check: ImageCheck): string {
  const { corruptions, leaks, checkErrors, allocatedClusters: allocated, totalClusters } = check
  let text = ''
  if (corruptions + leaks + checkErrors === 0) text += 'No errors were found on the image.\n'
  if (corruptions > 0) {
    text +=
      `\n${corruptions} errors were found on the image.\n` +
      'Data may be corrupted, or further writes to the image may corrupt it.\n'
  }
  if (leaks > 0) {
    text +=
      `\n${leaks} leaked clusters were found on the image.\n` +
      'This means waste of disk space, but no harm to data.\n'
  }
  if (checkErrors > 0) text += `\n${checkErrors} internal errors have occurred during the check.\n`
  if (totalClusters > 0 && allocated > 0) {
    text +=
      `${allocated}/${totalClusters} = ${percent(allocated, totalClusters)} allocated, ` +
      `${percent(check.fragmentedClusters, allocated)} fragmented, ` +
      `${percent(check.compressedClusters, allocated)} compressed clusters\n`
  }
  if (check.imageEndOffset > 0) text += `Image end offset: ${check.imageEndOffset}\n`
  return text
}

function percent(part: number, whole: number): string {
  const value = (part * 100) / whole
  // Half of the last digit C rounds to the even one, JavaScript up.
  const hundredths = value * 100
  const tie = hundredths % 1 === 0.5 && Math.floor(hundredths) % 2 === 0
  return `${(tie ? Math.floor(hundredths) / 100 : value).toFixed(2)}%`
}

/** The result of a check as QEMU's JSON: keys in its order, without zero counters. */
export function checkToJson(check: ImageCheck): { readonly [key: string]: JsonValue | undefined } {
  const some = (count: number) => count || undefined
  return {
    'image-end-offset': some(check.imageEndOffset),
    'compressed-clusters': some(check.compressedClusters),
    'total-clusters': some(check.totalClusters),
    corruptions: some(check.corruptions),
    'corruptions-fixed': some(check.corruptionsFixed),
    'check-errors': check.checkErrors,
    leaks: some(check.leaks),
    'leaks-fixed': some(check.leaksFixed),
    'allocated-clusters': some(check.allocatedClusters),
    filename: check.filename,
    format: check.format,
    'fragmented-clusters': some(check.fragmentedClusters),
  }
}
