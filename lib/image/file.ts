import type { BigIntStats } from 'node:fs'
import { BackupError, ioError } from '../errors.ts'
import { constants, descriptorPath, type FileHandle, O_PATH, open } from '../files.ts'

/** A file that holds guest bytes of a source. */
export interface SourceFile {
  readonly kind: 'file'
  /** As messages name it. */
  readonly path: string
  /** Open for reading, buffered; owned by the source. */
  readonly handle: FileHandle
  /** Bytes when it was opened. */
  readonly size: number
  /** Identity of the file, also through links: `dev:ino` (devices: `rdev:N`). */
  readonly identity: string
  /** Reads do not count against a copy's rate limit. */
  readonly unlimited?: boolean
}

/** A file that was opened for reading. */
export interface OpenFile extends SourceFile {
  /** A block device: holds data everywhere. */
  readonly blockDevice: boolean
  /** Blocks that the file system allocated, bytes; of a block device, 0. */
  readonly allocatedBytes: number
}

/** A regular file or a block device that was found under a name, not open for reading yet. */
export interface FoundFile {
  /** As messages name it. */
  readonly path: string
  /** Opened with O_PATH; closed by the caller that found it. */
  readonly handle: FileHandle
}

/**
 * Opens a regular file or a block device for reading. Its name is resolved once, without opening
 * the file: opening a FIFO waits for a writer, and opening a device may have side effects.
 * The file found is judged, and that very file is then opened.
 * @throws BackupError IO, or UNSUPPORTED for another kind of file
 */
export async function openFile(path: string): Promise<OpenFile> {
  return await using(await findFile(path), (found) => openFound(found))
}

/** Like `openFile`, for writing too. */
export async function openWritable(path: string): Promise<OpenFile> {
  return await using(await findFile(path), (found) => openFound(found, true))
}

/**
 * Finds a regular file or a block device.
 * @throws BackupError IO, or UNSUPPORTED for another kind of file
 */
async function findFile(path: string): Promise<FoundFile> {
  try {
    const handle = await open(path, O_PATH)
    try {
      await requireReadable({ path, handle })
      return { path, handle }
    } catch (error) {
      await handle.close()
      throw error
    }
  } catch (error) {
    throw ioError(path, error)
  }
}

/**
 * Opens a file that was found; `found` stays open.
 * @param path as messages name it, if not as it was found
 * @throws BackupError IO
 */
export async function openFound(
  found: FoundFile,
  writable = false,
  path = found.path,
): Promise<OpenFile> {
  try {
    const handle = await openAgain(found, writable ? constants.O_RDWR : constants.O_RDONLY)
    try {
      return await toOpenFile(path, handle)
    } catch (error) {
      await handle.close()
      throw error
    }
  } catch (error) {
    throw ioError(path, error)
  }
}

/**
 * Opens an open file once more, to write to it too.
 * @throws BackupError IO
 */
export async function reopenWritable(file: OpenFile): Promise<OpenFile> {
  return await openFound(file, true)
}

/**
 * Reopens the file of a handle through its descriptor, whatever its name leads to by now.
 * No flag against blocking: its kind is known, and with O_NONBLOCK the kernel would fail reads that
 * have to wait.
 */
async function openAgain({ handle, path }: FoundFile, flags: number): Promise<FileHandle> {
  return await open(descriptorPath(handle), flags).catch((error) => {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    throw procMissing(path)
  })
}

/** Resolving the name a second time is not an alternative: it may lead elsewhere by then. */
export function procMissing(path: string): BackupError {
  return new BackupError('IO', path, 'cannot be opened where /proc is not mounted')
}

/** Closes a handle when something was done with it. */
async function using<H extends { handle: FileHandle }, T>(
  held: H,
  use: (held: H) => Promise<T>,
): Promise<T> {
  try {
    return await use(held)
  } finally {
    await held.handle.close()
  }
}

/**
 * A regular file or a block device that is open already.
 * @throws BackupError UNSUPPORTED; errors of the system calls
 */
export async function toOpenFile(path: string, handle: FileHandle): Promise<OpenFile> {
  const now = await handle.stat({ bigint: true })
  requireKind(path, now)
  return {
    kind: 'file',
    path,
    handle,
    size: await sizeOf(handle),
    identity: identityOf(now),
    blockDevice: now.isBlockDevice(),
    allocatedBytes: Number(now.blocks) * 512,
  }
}

/** See `SourceFile.identity`. */
export function identityOf(
  stats: Pick<BigIntStats, 'dev' | 'ino' | 'rdev' | 'isBlockDevice'>,
): string {
  return stats.isBlockDevice() ? `rdev:${stats.rdev}` : `${stats.dev}:${stats.ino}`
}

/**
 * Compares the sizes of files with their sizes when opened.
 * @throws BackupError SOURCE_CHANGED
 */
export async function requireUnchanged(files: readonly SourceFile[]): Promise<void> {
  for (const file of files) {
    const size = await sizeOf(file.handle).catch((error) => {
      throw ioError(file.path, error)
    })
    if (size === file.size) continue
    const how = size < file.size ? 'shrank' : 'grew'
    throw new BackupError(
      'SOURCE_CHANGED',
      file.path,
      `${how} from ${file.size} to ${size} bytes while it was read`,
    )
  }
}

async function sizeOf(handle: FileHandle): Promise<number> {
  const now = await handle.stat()
  if (!now.isBlockDevice()) return now.size
  const { native } = await import('../native.ts')
  return native().deviceSize(handle.fd)
}

/**
 * Checks that a file found can be read as a disk.
 * @throws BackupError IO, or UNSUPPORTED if it is neither a regular file nor a block device
 */
export async function requireReadable({ path, handle }: FoundFile): Promise<void> {
  requireKind(path, await handle.stat({ bigint: true }))
}

function requireKind(path: string, stats: BigIntStats): void {
  if (stats.isFile() || stats.isBlockDevice()) return
  if (stats.isDirectory()) throw new BackupError('IO', path, 'is a directory', { errno: 'EISDIR' })
  throw new BackupError('UNSUPPORTED', path, 'is neither a regular file nor a block device')
}
