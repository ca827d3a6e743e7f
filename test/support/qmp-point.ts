/** What tests of machines over QMP look at. */
import { randomBytes } from 'node:crypto'
import { readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import type { Test } from 'tap'
import { fullBackup } from '../../lib/backup/full.ts'
import { incrementalBackup } from '../../lib/backup/incremental.ts'
import type { FrozenDisk } from '../../lib/machine/machine.ts'
import { qemuImg, run } from './qemu.ts'

/** Such bitmaps belong to jobs and filters. */
const ANONYMOUS = 'a bitmap without a name'

type Qmp = (command: string, args?: Record<string, unknown>) => Promise<unknown>

/** An id of a run that nobody else has: tests run at the same time. */
export function newRun(): string {
  return randomBytes(6).toString('hex')
}

/**
 * The disk as the point in time shows it, by libnbd's hand. QEMU before 8.0 answers right only for single
 * clusters, and qemu-img cannot be told to ask for no more.
 */
export function readByNbdcopy({ source }: FrozenDisk, path: string): string {
  const { status, stderr } = run('nbdcopy', ['--no-extents', '--request-size=65536', source, path])
  if (status !== 0) throw new Error(stderr)
  return path
}

/** Takes a backup of a frozen disk. @param backing of an incremental one */
export async function backUp(disk: FrozenDisk, path: string, backing?: string): Promise<string> {
  const { source, open } = disk
  const options = { ...open, force: true }
  if (backing === undefined) await fullBackup(source, path, options)
  else await incrementalBackup(source, path, { ...options, backing, bitmap: open.bitmap ?? '' })
  return path
}

/** Whether a backup has the content of a raw file, by qemu-img. */
export function requireSame(t: Test, backup: string, raw: string): void {
  const { stdout, status } = run('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', backup, raw])
  t.equal(stdout.trim(), 'Images are identical.', 'the backup has the content of the instant')
  t.equal(status, 0)
}

/** Names of everything that a run made, or a job, in QEMU and in directories. */
export async function leftBy(qmp: Qmp, run: string, ...directories: string[]): Promise<string[]> {
  const nodes = (await qmp('query-named-block-nodes', { flat: true })) as {
    'node-name': string
    'dirty-bitmaps'?: { name?: string }[]
  }[]
  const jobs = (await qmp('query-jobs')) as { id: string }[]
  const exports = (await qmp('query-block-exports')) as { id: string }[]
  const bitmaps = nodes.flatMap((node) => node['dirty-bitmaps'] ?? [])
  const names = [
    ...nodes.map((node) => node['node-name']),
    ...bitmaps.map(({ name }) => name ?? ANONYMOUS),
    ...[...jobs, ...exports].map(({ id }) => id),
    ...[...directories, tmpdir()].flatMap((directory) => readdirSync(directory)),
  ]
  return names.filter((name) => name === ANONYMOUS || name.startsWith(`qcow2-backup-${run}`))
}

/** Makes a qcow2 image. */
export function makeImage(path: string, size: string, ...options: string[]): string {
  qemuImg('create', '-q', '-f', 'qcow2', ...options, path, size)
  return path
}
