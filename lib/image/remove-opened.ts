import { constants } from 'node:fs'
import { basename, dirname } from 'node:path'
import { BackupError, ioError } from '../errors.ts'
import { descriptorPath, lstat, open, readlink, realpath, unlink } from '../files.ts'
import { identityOf, type SourceFile } from './file.ts'

/**
 * Removes a file that is open, and the symbolic link that named it, if one did. What has taken its
 * name since is left alone: names are looked up in a directory that is held open, so that nothing on
 * the way to it can be replaced, and compared right before the removal.
 * @param path by which it was opened
 * @throws BackupError SOURCE_CHANGED if another file has the name now; IO
 */
export async function removeOpened(path: string, { identity }: SourceFile): Promise<void> {
  try {
    const real = await realpath(path)
    const link = await linkAt(path)
    await inDirectoryOf(real, async (place) => {
      if (identityOf(await lstat(place)) !== identity) throw replaced(path)
      await unlink(place)
    })
    if (link === undefined) return
    await inDirectoryOf(path, async (place) => {
      if ((await linkAt(place)) === link) await unlink(place)
    })
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'ENOENT' ? replaced(path) : ioError(path, error)
  }
}

/** What a symbolic link says; undefined if the name is not one. */
async function linkAt(path: string): Promise<string | undefined> {
  return (await lstat(path)).isSymbolicLink() ? await readlink(path) : undefined
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

function replaced(path: string): BackupError {
  const why = 'was replaced or removed while it was in use, so nothing is removed under its name'
  return new BackupError('SOURCE_CHANGED', path, why)
}
