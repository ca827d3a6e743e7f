import { constants } from 'node:fs'
import { access, open, readdir, rm, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { BackupError, ioError } from '../../lib/errors.ts'
import { formatSize } from '../../lib/units.ts'
import { run } from './process.ts'

/** Debian packages by the tool that is asked for its version. */
const PACKAGES = {
  'qemu-img': 'qemu-utils',
  'qemu-io': 'qemu-utils',
  'qemu-nbd': 'qemu-utils',
  'qemu-storage-daemon': 'qemu-system-common',
  nbdcopy: 'libnbd-bin',
  cc: 'gcc',
  fio: 'fio',
  time: 'time',
  dd: 'coreutils',
}

/** Checks requirements before the run starts. @throws BackupError IO for a missing tool */
export async function requireTools(signal: AbortSignal): Promise<void> {
  for (const [tool, debian] of Object.entries(PACKAGES)) {
    await run([tool, '--version'], signal).catch((error) => {
      if (signal.aborted) throw error
      throw new BackupError('IO', tool, `cannot be run; it is in the Debian package ${debian}`)
    })
  }
}

/** @throws BackupError IO if the program is not built */
export async function requireProgram(file: string): Promise<void> {
  await access(file).catch((error) => {
    throw ioError(file, error)
  })
}

/**
 * @param dir an existing directory
 * @throws BackupError BAD_TARGET if its file system refuses O_DIRECT, without which neither peer
 * nor limit would measure the disk
 */
export async function requireDirectIO(dir: string): Promise<void> {
  const probe = join(dir, 'direct.probe')
  try {
    const flags = constants.O_CREAT | constants.O_RDWR | constants.O_DIRECT
    await (await open(probe, flags, 0o600)).close()
  } catch (error) {
    throw new BackupError('BAD_TARGET', dir, 'files there cannot be opened with O_DIRECT', {
      cause: error,
    })
  } finally {
    await rm(probe, { force: true })
  }
}

/**
 * @param needed bytes of all disks and targets; the disks already made count as free
 * @returns bytes that are free
 * @throws BackupError BAD_TARGET if too few are
 */
export async function requireSpace(dir: string, needed: number): Promise<number> {
  const { bavail, bsize } = await statfs(dir)
  const names = await readdir(dir)
  const files = await Promise.all(names.map((name) => stat(join(dir, name))))
  const used = files.reduce((sum, file) => sum + file.blocks * 512, 0)
  const free = bavail * bsize
  if (free + used < needed) {
    const why = `needs ${formatSize(needed)}, ${formatSize(free)} are free`
    throw new BackupError('BAD_TARGET', dir, why)
  }
  return free
}
