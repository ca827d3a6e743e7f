import type { BigIntStats } from 'node:fs'
import { basename, dirname } from 'node:path'
import { argumentError, BackupError, ioError } from '../errors.ts'
import { open, readlink, realpath, stat } from '../files.ts'
import { identityOf } from '../image/file.ts'
import { lockFile, WRITING } from '../image/locks.ts'
import type { SourceFile } from '../source/source.ts'

/** What tells whether a target is one of the sources. */
export type SourceIdentity = Pick<SourceFile, 'path' | 'identity'>

/** As many as the kernel follows. */
const MAX_LINKS = 40

/**
 * Where a path leads through symbolic links, also if nothing is there yet.
 * @throws BackupError USAGE if the path is empty, BAD_TARGET if it can only name a directory, IO if
 * its directory is missing or cannot be searched
 */
export async function locate(path: string): Promise<string> {
  if (path === '') throw argumentError('target', 'has no name')
  let at = path
  for (let links = 0; links < MAX_LINKS; links++) {
    if (/(^|\/)\.{0,2}$/.test(at)) {
      throw new BackupError('BAD_TARGET', path, 'is a directory')
    }
    const directory = await realDirectory(dirname(at))
    const location = `${directory === '/' ? '' : directory}/${basename(at)}`
    const next = await linkTarget(path, location)
    if (next === undefined) return location
    at = next.startsWith('/') ? next : `${directory}/${next}`
  }
  throw new BackupError('IO', path, 'too many symbolic links', { errno: 'ELOOP' })
}

async function realDirectory(path: string): Promise<string> {
  try {
    return await realpath(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw ioError(path, error)
    throw new BackupError('IO', path, 'no such directory', { cause: error, errno: 'ENOENT' })
  }
}

/** What a symbolic link says; undefined for anything else, and for nothing. */
async function linkTarget(path: string, location: string): Promise<string | undefined> {
  try {
    return await readlink(location)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    // EINVAL: it is there and no symbolic link.
    if (code === 'EINVAL' || code === 'ENOENT') return undefined
    throw ioError(path, error)
  }
}

/**
 * Checks that something may be written at `location`.
 * @returns whether a block device stands there, which is written in place
 * @throws BackupError TARGET_EXISTS, BAD_TARGET, IN_USE, or IO if it cannot be looked at
 */
export async function checkTarget(
  path: string,
  location: string,
  force: boolean,
  sources: readonly SourceIdentity[],
): Promise<boolean> {
  const stats = await statIfAny(path, location)
  if (!stats) return false
  const kind = wrongKind(stats)
  if (kind) throw new BackupError('BAD_TARGET', path, `is a ${kind}`)
  const identity = identityOf(stats)
  const source = sources.find((file) => file.identity === identity)
  if (source) {
    const also = source.path === path ? '' : `, also named ${source.path}`
    throw new BackupError('BAD_TARGET', path, `is the source${also}`)
  }
  if (!force) {
    throw new BackupError('TARGET_EXISTS', path, 'exists', { hint: 'force' })
  }
  await requireUnused(path, location)
  return stats.isBlockDevice()
}

async function statIfAny(path: string, location: string): Promise<BigIntStats | undefined> {
  try {
    return await stat(location)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw ioError(path, error)
  }
}

function wrongKind(stats: BigIntStats): string | undefined {
  if (stats.isDirectory()) return 'directory'
  if (stats.isFIFO()) return 'named pipe'
  if (stats.isSocket()) return 'socket'
  if (stats.isCharacterDevice()) return 'character device'
  return undefined
}

/**
 * A running QEMU would go on with a file that has lost its name.
 * @throws BackupError IN_USE if another process has what stands there open as an image
 */
async function requireUnused(path: string, location: string): Promise<void> {
  // What cannot be read can be replaced all the same.
  const handle = await open(location).catch(() => undefined)
  if (!handle) return
  try {
    lockFile(handle, path, WRITING)
  } finally {
    await handle.close()
  }
}
