import { dirname } from 'node:path'
import { BackupError, ioError } from '../errors.ts'
import { constants, type FileHandle, open } from '../files.ts'
import { lockFile, WRITING } from '../image/locks.ts'
import { type CopySpec, native } from '../native.ts'
import type { SourceIdentity } from './target-check.ts'
import { checkTarget, locate } from './target-check.ts'
import { TemporaryFile } from './temporary-file.ts'

/** Where a copy writes. */
export interface Target {
  /** As given, for messages. */
  readonly path: string
  /** What the addon writes to. Closed by `publish` and `discard`. */
  readonly store: CopySpec['target']
  /** Of a file or a device, open for reading and writing. Closed by `publish` and `discard`. */
  readonly handle?: FileHandle
  /**
   * Bytes of a block device or an export, which is written in place; undefined for a file, which
   * stands nowhere before `publish`.
   */
  readonly room?: number
  /**
   * Syncs what was written, gives it the target's name, and syncs the directory. To be followed by
   * `discard` if it fails.
   * @throws BackupError TARGET_EXISTS if the name was taken meanwhile and `force` was not given;
   * IO if the system refuses
   */
  publish(): Promise<void>
  /** Removes what was not published. Never fails, and may follow `publish` or be called twice. */
  discard(): Promise<void>
}

export interface TargetOptions {
  /** Replace what stands under the name; it stays as it is until `publish`. */
  force?: boolean
  /** The files that are read, none of which may be the target. */
  sources: readonly SourceIdentity[]
}

/**
 * Opens a target, after the checks that can be made before a byte is written. A symbolic link is
 * followed, and what it names is made or replaced.
 * @throws BackupError TARGET_EXISTS, BAD_TARGET, or IO naming the target or its directory
 */
export async function openTarget(path: string, options: TargetOptions): Promise<Target> {
  const { force = false, sources } = options
  const location = await locate(path)
  const isDevice = await checkTarget(path, location, force, sources)
  return isDevice ? openDevice(path, location) : openFile(path, location, force)
}

async function openFile(path: string, location: string, force: boolean): Promise<Target> {
  const directory = await openDirectory(dirname(location))
  let file: TemporaryFile
  try {
    file = await TemporaryFile.beside(location)
  } catch (error) {
    await directory.close()
    throw cannotHold(dirname(location), error)
  }
  const discard = async () => {
    await file.discard()
    await directory.close().catch(() => {})
  }
  try {
    // From its first moment under the target's name, until it is closed.
    lockFile(file.handle, path, WRITING)
  } catch (error) {
    await discard()
    throw error
  }
  return {
    path,
    store: { fd: file.handle.fd },
    handle: file.handle,
    async publish() {
      try {
        await file.handle.sync()
        await (force ? file.replace(location) : file.linkTo(location))
        await syncDirectory(directory)
      } catch (error) {
        throw isErrno(error, 'EEXIST') ? takenMeanwhile(path, error) : ioError(path, error)
      }
      await discard()
    },
    discard,
  }
}

async function openDevice(path: string, location: string): Promise<Target> {
  let handle: FileHandle
  try {
    // O_EXCL on a block device: refused while it is mounted or part of another device.
    handle = await open(location, constants.O_RDWR | constants.O_EXCL)
  } catch (error) {
    if (!isErrno(error, 'EBUSY')) throw ioError(path, error)
    const why = 'is in use: mounted, or part of another device'
    throw new BackupError('BAD_TARGET', path, why, { cause: error, errno: 'EBUSY' })
  }
  const discard = () => handle.close().catch(() => {})
  try {
    lockFile(handle, path, WRITING)
  } catch (error) {
    await discard()
    throw error
  }
  return {
    path,
    store: { fd: handle.fd },
    handle,
    room: native().deviceSize(handle.fd),
    async publish() {
      try {
        await handle.sync()
      } catch (error) {
        throw ioError(path, error)
      }
      await discard()
    },
    discard,
  }
}

/** Opened at the start: that it cannot be read, hence not synced, must not turn out in the end. */
async function openDirectory(path: string): Promise<FileHandle> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
  } catch (error) {
    throw ioError(path, error)
  }
}

/** Some file systems (FUSE, network) answer EINVAL: they have no directory to sync. */
async function syncDirectory(directory: FileHandle): Promise<void> {
  await directory.sync().catch((error) => {
    if (!isErrno(error, 'EINVAL')) throw error
  })
}

function cannotHold(directory: string, error: unknown): BackupError {
  // The directory is there, so ENOENT is about the new file: /proc answers so.
  if (!isErrno(error, 'ENOENT')) return ioError(directory, error)
  const why = 'new files cannot be made in this directory'
  return new BackupError('IO', directory, why, { cause: error, errno: 'ENOENT' })
}

function takenMeanwhile(path: string, cause: unknown): BackupError {
  const why = 'was made by another process meanwhile'
  return new BackupError('TARGET_EXISTS', path, why, { cause, errno: 'EEXIST', hint: 'force' })
}

function isErrno(error: unknown, errno: string): boolean {
  return (error as NodeJS.ErrnoException | undefined)?.code === errno
}
