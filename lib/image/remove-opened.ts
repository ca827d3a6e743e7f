import { basename, dirname } from 'node:path'
import { BackupError, ioError } from '../errors.ts'
import { constants, descriptorPath, lstat, nameOf, open, readlink, stat, unlink } from '../files.ts'
import { identityOf, type SourceFile } from './file.ts'

/**
 * Removes a file that is open, and the symbolic link that named it, if one did. What has taken its
 * name since is left alone: names are looked up in a directory that is held open, so that nothing on
 * the way to it can be replaced, and compared right before the removal.
 * @param path by which it was opened
 * @throws BackupError SOURCE_CHANGED if another file has the name now; IO
 */
export async function removeOpened(path: string, file: SourceFile): Promise<void> {
  const { identity } = file
  try {
    await inDirectoryOf(path, async (given) => {
      // By the name that the user knows it is still the file: a link that leads there is its own.
      if (identityOf(await stat(given)) !== identity) throw replaced(path)
      const link = await linkAt(given)
      const real = link === undefined ? undefined : await nameOf(file.handle)
      if (real === undefined) return await unlinkIf(given, identity, path)
      await inDirectoryOf(real, (place) => unlinkIf(place, identity, path))
      if ((await linkAt(given)) === link) await unlink(given)
    })
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'ENOENT' ? replaced(path) : ioError(path, error)
  }
}

async function unlinkIf(place: string, identity: string, path: string): Promise<void> {
  if (identityOf(await lstat(place)) !== identity) throw replaced(path)
  await unlink(place)
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
