import { BackupError, ioError } from '../../errors.ts'
import { type FileHandle, syncDirectory } from '../../files.ts'
import { lockFile, WRITING } from '../../image/locks.ts'
import type { ExistingTarget } from './judge.ts'
import { type Location, whereIs } from './location.ts'
import type { Target } from './target.ts'
import { Replaced, TemporaryFile } from './temporary-file.ts'

/** A file as a target. */
export type FileTarget = Target & { readonly kind: 'file'; readonly handle: FileHandle }

/**
 * Makes the file that will replace the one at a location, or take a free name.
 * @param standing its handle is closed by `discard`
 * @throws BackupError IO, IN_USE; the caller then closes the location and the file there
 */
export async function openFileTarget(
  location: Location,
  standing: ExistingTarget | undefined,
): Promise<FileTarget> {
  const { path, directory, directoryPath } = location
  let file: TemporaryFile
  try {
    file = await TemporaryFile.in(location)
  } catch (error) {
    throw cannotHold(directoryPath, error)
  }
  try {
    // From its first moment under the target's name, until it is closed.
    lockFile(file.handle, path, WRITING)
  } catch (error) {
    await file.discard()
    throw error
  }
  return {
    kind: 'file',
    path,
    store: { kind: 'file', fd: file.handle.fd },
    handle: file.handle,
    inPlace: false,
    replaced: standing?.identity,
    async sizes() {
      const { size, blocks } = await attempt(path, () => file.handle.stat())
      return { fileSize: size, allocatedBytes: blocks * 512 }
    },
    located: () => whereIs(location),
    sync: () => attempt(path, () => file.handle.sync()),
    async place() {
      try {
        await file.place(standing?.identity)
      } catch (error) {
        throw placingFailed(path, standing !== undefined, error)
      }
    },
    async settle() {
      try {
        await syncDirectory(directory)
      } catch (error) {
        const { why, errno } = ioError(path, error)
        const what = `its name in ${directoryPath} cannot be made durable: ${why}`
        throw new BackupError('IO', path, what, { cause: error, errno })
      }
    },
    async revert() {
      try {
        if (await file.revert()) return undefined
        return `${path} is the new file, complete; the one before is gone`
      } catch (error) {
        const { keptName } = file
        const before =
          keptName === undefined ? '' : `; the one before is ${directoryPath}/${keptName}`
        const { why } = ioError(path, error)
        return `${path} is the new file, complete, and could not be taken back: ${why}${before}`
      }
    },
    async finish() {
      const kept = file.keptName
      try {
        await file.removeOld()
        return undefined
      } catch (error) {
        const { why } = ioError(path, error)
        return `${path} was replaced, but the file before is left as ${directoryPath}/${kept}: ${why}`
      }
    },
    async discard() {
      await file.discard()
      await standing?.handle?.close().catch(() => {})
      await directory.close().catch(() => {})
    },
  }
}

async function attempt<T>(path: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call()
  } catch (error) {
    throw ioError(path, error)
  }
}

function placingFailed(path: string, replaces: boolean, error: unknown): BackupError {
  if (error instanceof Replaced && error.isDirectory) {
    return new BackupError('IO', path, 'is a directory', { cause: error, errno: 'EISDIR' })
  }
  const options = { cause: error, hint: 'force' } as const
  if (error instanceof Replaced) {
    const how = replaces ? 'replaced' : 'made'
    return new BackupError(
      'TARGET_EXISTS',
      path,
      `was ${how} by another process meanwhile`,
      options,
    )
  }
  if (!isErrno(error, 'EEXIST')) return ioError(path, error)
  const why = 'was made by another process meanwhile'
  return new BackupError('TARGET_EXISTS', path, why, { ...options, errno: 'EEXIST' })
}

function cannotHold(directory: string, error: unknown): BackupError {
  // The directory is there, so ENOENT is about the new file: /proc answers so.
  if (!isErrno(error, 'ENOENT')) return ioError(directory, error)
  const why = 'new files cannot be made in this directory'
  return new BackupError('IO', directory, why, { cause: error, errno: 'ENOENT' })
}

function isErrno(error: unknown, errno: string): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.code === errno
}
