import { randomBytes } from 'node:crypto'
import { basename, dirname, join } from 'node:path'
import { BackupError, ioError } from '../errors.ts'
import {
  constants,
  descriptorPath,
  link,
  lstat,
  nameOf,
  open,
  readlink,
  rename,
  stat,
  unlink,
} from '../files.ts'
import { identityOf, type SourceFile } from './file.ts'

/**
 * Removes a file that is open, and the symbolic link that named it, if one did. A file that has taken its
 * name since is left alone: names are looked up in a directory that is held open, so that nothing on
 * the path to it can be replaced, and the file removed was compared under a private name.
 * @param path by which it was opened
 * @throws BackupError SOURCE_CHANGED if another file has the name now; IO
 */
export async function removeOpened(path: string, file: SourceFile): Promise<void> {
  const { identity } = file
  try {
    await inDirectoryOf(path, async (given) => {
      // By the name that the user knows it is still the file: a link that leads there is its own.
      if (identityOf(await stat(given)) !== identity) throw replaced(path)
      const target = await linkAt(given)
      const real = target === undefined ? undefined : await nameOf(file.handle)
      const isFile = async (place: string) => identityOf(await lstat(place)) === identity
      if (real === undefined) return await requireRemoved(isFile, given, path)
      await inDirectoryOf(real, (place) => requireRemoved(isFile, place, real))
      // A link that is another one by now is not that of the file any more.
      await removeIf(async (place) => (await linkAt(place)) === target, given, path)
    })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw ioError(path, error)
    throw changed(path, 'nothing has its name any more')
  }
}

async function requireRemoved(...args: Parameters<typeof removeIf>): Promise<void> {
  if (!(await removeIf(...args))) throw replaced(args[2])
}

/**
 * Removes a name if it leads to the expected file. Between a comparison and unlink(2) another file could
 * take the name, and would be lost. So it gets a private name first, is compared under that, and gets
 * its name back if it is another's. A crash in between leaves the file under the private
 * name, or in that short moment another's file, which is still there then.
 * @param path as messages name it
 * @returns whether it was
 */
async function removeIf(
  isMeant: (place: string) => Promise<boolean>,
  place: string,
  path: string,
): Promise<boolean> {
  if (!(await isMeant(place))) return false
  const name = `.qcow2-backup-removed-${randomBytes(8).toString('hex')}`
  const aside = join(dirname(place), name)
  await rename(place, aside)
  if (await isMeant(aside)) {
    await unlink(aside)
    return true
  }
  try {
    // Unlike rename(2) this replaces nothing.
    await link(aside, place)
    await unlink(aside)
  } catch {
    throw replaced(path, `; what took it is ${join(dirname(path), name)} now`)
  }
  return false
}

/** Target of a symbolic link; undefined if the name is not one. */
async function linkAt(path: string): Promise<string | undefined> {
  return await readlink(path).catch((error) => {
    if ((error as NodeJS.ErrnoException).code === 'EINVAL') return undefined
    throw error
  })
}

/** Calls `use` with a name of a file that is looked up in its directory as it is now. */
async function inDirectoryOf(path: string, use: (place: string) => Promise<void>): Promise<void> {
  const directory = await open(dirname(path), constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await use(`${descriptorPath(directory)}/${basename(path)}`)
  } finally {
    await directory.close()
  }
}

function replaced(path: string, more = ''): BackupError {
  return changed(path, `its name belongs to another file now${more}`)
}

function changed(path: string, why: string): BackupError {
  return new BackupError('SOURCE_CHANGED', path, why)
}
