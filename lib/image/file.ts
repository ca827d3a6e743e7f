import type { BigIntStats } from 'node:fs'
import { BackupError, ioError } from '../errors.ts'
import { type FileHandle, open, stat } from '../files.ts'

/** A file that holds guest bytes of a source. */
export interface SourceFile {
  /** As messages name it. */
  readonly path: string
  /** Open for reading, buffered; owned by the source. */
  readonly handle: FileHandle
  /** Bytes when it was opened. */
  readonly size: number
  /** Tells this file from all others, also through links: `dev:ino` (devices: `rdev:N`). */
  readonly identity: string
}

/** A file that was opened for reading. */
export interface OpenedFile extends SourceFile {
  /** A block device: holds data everywhere. */
  readonly blockDevice: boolean
  /** What the file system has given it, bytes; of a block device, 0. */
  readonly allocatedBytes: number
}

/** How files are opened; tests put their own in place to see every name that is asked for. */
export type OpenFile = (path: string) => Promise<OpenedFile>

/**
 * Opens a regular file or a block device for reading. Anything else is refused before it is
 * opened: opening a FIFO waits for a writer, and opening a device may already do something.
 * @throws BackupError IO, or UNSUPPORTED for another kind of file
 */
export function openFile(path: string): Promise<OpenedFile> {
  return openWith(path, 'r')
}

/** The same, to write to it too. */
export function openWritable(path: string): Promise<OpenedFile> {
  return openWith(path, 'r+')
}

async function openWith(path: string, flags: 'r' | 'r+'): Promise<OpenedFile> {
  try {
    requireReadable(path, await stat(path))
    const handle = await open(path, flags)
    try {
      return await openedFile(path, handle)
    } catch (error) {
      await handle.close()
      throw error
    }
  } catch (error) {
    throw ioError(path, error)
  }
}

/**
 * A regular file or a block device that is open already.
 * @throws BackupError UNSUPPORTED; what the system calls throw
 */
export async function openedFile(path: string, handle: FileHandle): Promise<OpenedFile> {
  const now = await handle.stat({ bigint: true })
  requireReadable(path, now)
  return {
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
 * Compares the sizes of files with what they were when opened.
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

function requireReadable(path: string, stats: BigIntStats): void {
  if (stats.isFile() || stats.isBlockDevice()) return
  if (stats.isDirectory()) throw new BackupError('IO', path, 'is a directory', { errno: 'EISDIR' })
  throw new BackupError('UNSUPPORTED', path, 'is neither a regular file nor a block device')
}
