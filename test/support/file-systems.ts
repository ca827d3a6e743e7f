/** File systems on disks, and their judge. */
import { copyFileSync, rmSync } from 'node:fs'
import { makeRaw } from './disks.ts'
import { qemuImg, run } from './qemu.ts'

/** Makes a disk with an empty ext4 on it. */
export function makeExt4(
  path: string,
  size: number,
  { format = 'raw', options = '' }: { format?: 'raw' | 'qcow2'; options?: string } = {},
): string {
  const raw = format === 'raw' ? path : `${path}.raw`
  makeRaw(raw, size, [])
  const extended = 'lazy_itable_init=0,lazy_journal_init=0,nodiscard'
  mustSucceed(run('mkfs.ext4', ['-q', '-F', '-E', extended, raw]))
  if (format === 'raw') return path
  const given = options === '' ? [] : ['-o', options]
  qemuImg('convert', '-f', 'raw', '-O', 'qcow2', ...given, raw, path)
  rmSync(raw)
  return path
}

/**
 * Whether an ext4 that was in use at the instant is as after a power cut: nothing to do but what the
 * journal and the list of orphans say.
 * @param path raw; it stays as it is
 */
export function isCleanExt4(path: string): boolean {
  const copy = `${path}.checked`
  copyFileSync(path, copy)
  // Refuses, with 4 or more, whatever is not safe to repair.
  const replayed = run('e2fsck', ['-f', '-p', copy])
  const checked = run('e2fsck', ['-f', '-n', copy])
  rmSync(copy)
  return (replayed.status ?? 8) <= 1 && checked.status === 0
}

/** Whether an ext4 has a journal to be replayed. */
export function needsRecovery(path: string): boolean {
  const shown = run('dumpe2fs', ['-h', path])
  mustSucceed(shown)
  return /needs_recovery/.test(shown.stdout)
}

function mustSucceed({ status, stderr }: { status: number | null; stderr: string }): void {
  if (status !== 0) throw new Error(stderr)
}
