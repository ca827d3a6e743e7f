/** Typed wrappers round QEMU's tools, the judges of every test. They fail if a tool is missing. */
import { spawnSync } from 'node:child_process'

/** Result of a tool. */
export interface ToolResult {
  status: number | null
  stdout: string
  stderr: string
}

/** Runs a tool and hands back whatever it did; throws only if it cannot be started. */
export function run(tool: string, args: readonly string[]): ToolResult {
  // Not a socket, for which bash would take itself for started by rshd, and read its start-up files.
  const stdio = ['ignore', 'pipe', 'pipe'] as const
  const result = spawnSync(tool, args, { encoding: 'utf8', maxBuffer: 2 ** 30, stdio: [...stdio] })
  if (result.error) throw result.error
  return { status: result.status, stdout: result.stdout, stderr: result.stderr }
}

function runOrThrow(tool: string, args: readonly string[]): string {
  const { status, stdout, stderr } = run(tool, args)
  if (status !== 0) {
    throw new Error(`${tool} ${args.join(' ')} ended with ${status}: ${stderr}${stdout}`)
  }
  return stdout
}

/** `qemu-img ARGS…`; returns stdout, throws with its stderr unless it ends with 0. */
export function qemuImg(...args: string[]): string {
  return runOrThrow('qemu-img', args)
}

/** An image for qemu-io: a path (recognised by QEMU), or with its format. */
export type QemuIoImage = string | { path: string; format: 'raw' | 'qcow2' }

/** `qemu-io -c COMMAND… IMAGE`; returns stdout, throws unless every command succeeds. */
export function qemuIo(image: QemuIoImage, ...commands: string[]): string {
  const target = typeof image === 'string' ? [image] : ['-f', image.format, image.path]
  return runOrThrow('qemu-io', [...commands.flatMap((c) => ['-c', c]), ...target])
}

/** One entry of `qemu-img map --output=json`. */
export interface MapEntry {
  start: number
  length: number
  depth: number
  present: boolean
  zero: boolean
  data: boolean
  offset?: number
}

/** `qemu-img map --output=json IMAGE`. */
export function qemuImgMap(image: string, format: 'raw' | 'qcow2' = 'qcow2'): MapEntry[] {
  return JSON.parse(qemuImg('map', '--output=json', '-f', format, image))
}

/** The fields that tests read of `qemu-img info --output=json`. */
export interface ImageInfo {
  format: string
  'virtual-size': number
  'actual-size': number
  'cluster-size'?: number
  'dirty-flag'?: boolean
  'backing-filename'?: string
  'backing-filename-format'?: string
  'format-specific'?: { type: string; data: Record<string, unknown> }
}

/** `qemu-img info --output=json IMAGE`. */
export function qemuImgInfo(image: string): ImageInfo {
  return JSON.parse(qemuImg('info', '--output=json', image))
}

/** The fields that tests read of `qemu-img check --output=json`; absent counters are 0. */
export interface CheckReport {
  'check-errors': number
  'image-end-offset'?: number
  'total-clusters'?: number
  'allocated-clusters'?: number
  'fragmented-clusters'?: number
  'compressed-clusters'?: number
  leaks?: number
  corruptions?: number
}

/** `qemu-img check`: 0 is clean, 2 is corrupt, 3 has leaks; `stderr` has a line for each finding. */
export function qemuImgCheck(image: string): {
  status: number | null
  report: CheckReport
  stderr: string
} {
  const { status, stdout, stderr } = run('qemu-img', ['check', '--output=json', image])
  if (!stdout.trim()) throw new Error(`qemu-img check ${image} ended with ${status}: ${stderr}`)
  return { status, report: JSON.parse(stdout), stderr }
}

/** `qemu-img compare`: whether the guest sees the same; throws if it could not be found out. */
export function qemuImgSame(
  a: { path: string; format: string },
  b: { path: string; format: string },
): boolean {
  const args = ['compare', '-f', a.format, '-F', b.format, a.path, b.path]
  const { status, stdout, stderr } = run('qemu-img', args)
  if (status !== 0 && status !== 1) {
    throw new Error(`qemu-img ${args.join(' ')} ended with ${status}: ${stderr}${stdout}`)
  }
  return status === 0
}
