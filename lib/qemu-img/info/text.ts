import { humanSize } from '../human-size.ts'
import type { JsonValue } from '../json.ts'
import { atLeast, type QemuVersion } from '../version.ts'
import type { DescribedImage, ImageInfo } from './info.ts'
import { fileLength, formatSpecific, limitsToJson, protocolOf } from './json.ts'
import type { BlockLimits } from './limits.ts'
import { snapshotList } from './snapshot-list.ts'

const INDENT = '    '

/** The description of an image, for people, as QEMU prints it. */
export function infoToText(info: DescribedImage, version: QemuVersion): string {
  const lines = [
    `image: ${info.filename}`,
    `file format: ${info.format}`,
    `virtual size: ${bytes(info.virtualSize)}`,
    `disk size: ${humanSize(info.actualSize)}`,
  ]
  if (info.encrypted) lines.push('encrypted: yes')
  if (info.clusterSize !== undefined) lines.push(`cluster_size: ${info.clusterSize}`)
  if (info.dirty) lines.push('cleanly shut down: no')
  lines.push(...backing(info))
  if (info.limits) lines.push(...limits(info.limits.image, ''))
  if (info.snapshots.length > 0)
    lines.push('Snapshot list:', ...snapshotList(info.snapshots, version))
  if (info.qcow2) {
    lines.push('Format specific information:', ...dump(formatSpecific(info.qcow2, version), INDENT))
  }
  if (atLeast(version, 8, 0)) lines.push(...protocolNode(info))
  return lines.map((line) => `${line}\n`).join('')
}

/** The description of an image and its backing chain. */
export function chainToText(chain: readonly DescribedImage[], version: QemuVersion): string {
  return chain.map((info) => infoToText(info, version)).join('\n')
}

function bytes(size: number): string {
  return `${humanSize(size)} (${size} bytes)`
}

function backing({ backingFile, fullBackingFile, backingFormat }: ImageInfo): string[] {
  if (backingFile === undefined) return []
  const actual = fullBackingFile === backingFile ? '' : ` (actual path: ${fullBackingFile})`
  const format = backingFormat === undefined ? [] : [`backing file format: ${backingFormat}`]
  return [`backing file: ${backingFile}${actual}`, ...format]
}

/** The file that the image is in. */
function protocolNode(info: DescribedImage): string[] {
  return [
    "Child node '/file':",
    `${INDENT}filename: ${info.filename}`,
    `${INDENT}protocol type: ${protocolOf(info)}`,
    `${INDENT}file length: ${bytes(fileLength(info))}`,
    `${INDENT}disk size: ${humanSize(info.actualSize)}`,
    ...(info.limits ? limits(info.limits.file, INDENT) : []),
  ]
}

function limits(limits: BlockLimits, indent: string): string[] {
  return [`${indent}Block limits:`, ...dump(limitsToJson(limits), indent + INDENT)]
}

/** Members of a list or an object, a line to each, followed by their own members. */
function dump(value: JsonValue, indent: string): string[] {
  return entriesOf(value).flatMap(([key, member]) => {
    if (typeof member !== 'object') return [`${indent}${key}: ${member}`]
    return [`${indent}${key}:`, ...dump(member, indent + INDENT)]
  })
}

function entriesOf(value: JsonValue): [string, JsonValue][] {
  const named: [string, JsonValue | undefined][] = Array.isArray(value)
    ? value.map((item, i) => [`[${i}]`, item])
    : Object.entries(value as object).map(([key, item]) => [key.replaceAll('-', ' '), item])
  return named.filter((entry): entry is [string, JsonValue] => entry[1] !== undefined)
}
