import { BackupError } from '../../lib/errors.ts'
import { run, succeed } from './process.ts'

/** A file and how to read it. */
export interface Image {
  path: string
  format: 'raw' | 'qcow2'
}

/**
 * Lets qemu-img say whether two images hold the same bytes.
 * @throws BackupError BAD_IMAGE if they differ
 */
export async function requireSame(a: Image, b: Image, signal: AbortSignal): Promise<void> {
  const command = ['qemu-img', 'compare', '-f', a.format, '-F', b.format, a.path, b.path]
  const { status, stdout, stderr } = await run(command, signal)
  if (status !== 0) {
    throw new BackupError('BAD_IMAGE', b.path, `wrong result: ${firstLine(stdout || stderr)}`)
  }
}

/**
 * Lets qemu-img check a qcow2 image.
 * @returns clusters out of sequence, percent of those allocated, as `qemu-img check` prints it
 * @throws BackupError BAD_IMAGE if it finds corruptions, leaks or anything it cannot check
 */
export async function fragmentation(image: string, signal: AbortSignal): Promise<number> {
  const command = ['qemu-img', 'check', '--output=json', '-f', 'qcow2', image]
  const { status, stdout, stderr } = await run(command, signal)
  if (status !== 0) {
    const why = firstLine(stderr || stdout)
    throw new BackupError('BAD_IMAGE', image, `qemu-img check ended with ${status}: ${why}`)
  }
  return fragmentedPercent(JSON.parse(stdout))
}

/**
 * Checks with qemu-img that an image stores no data of its own, whatever its backing files do.
 * @throws BackupError BAD_IMAGE if it stores some
 */
export async function requireNoData(image: string, signal: AbortSignal): Promise<void> {
  const command = ['qemu-img', 'map', '--output=json', '-f', 'qcow2', image]
  const { stdout } = await succeed(command, signal)
  const extents: { start: number; depth: number; data: boolean }[] = JSON.parse(stdout)
  const stored = extents.find(({ depth, data }) => depth === 0 && data)
  if (stored) throw new BackupError('BAD_IMAGE', image, `stores data at ${stored.start}`)
}

/** qemu-img leaves out the counts that are 0. */
export function fragmentedPercent(report: Record<string, unknown>): number {
  const fragmented = Number(report['fragmented-clusters'] ?? 0)
  const allocated = Number(report['allocated-clusters'] ?? 0)
  return allocated === 0 ? 0 : (fragmented / allocated) * 100
}

/** Makes a qcow2 image of a raw disk, the way the peer of the full backup does. */
export function convert(from: Image, to: Image): string[] {
  const how = ['-t', 'none', '-T', 'none', '-W', '-m', '16', '-f', from.format, '-O', to.format]
  return ['qemu-img', 'convert', ...how, from.path, to.path]
}

/** Runs `convert` outside of any measurement. */
export async function makeImage(from: Image, to: Image, signal: AbortSignal): Promise<void> {
  await succeed(convert(from, to), signal)
}

function firstLine(text: string): string {
  return text.trim().split('\n')[0]
}
