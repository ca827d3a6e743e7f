/**
 * The system calls on named files that this library makes, with names that may be any bytes: each
 * takes and gives text as `decodeText` makes it, and hands bytes to Node, which would decode names
 * with loss. Nothing else in the library passes a name to `node:fs`. Failures are Node's own errors.
 */
import { randomBytes } from 'node:crypto'
import {
  type BigIntStats,
  fstatSync,
  lstatSync as lstatBytesSync,
  readFileSync,
  readlinkSync,
  type StatsFs,
  unlinkSync as unlinkBytesSync,
  write,
} from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import * as fs from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { usageError } from './errors.ts'
import { decodeText, encodeText, showText } from './text.ts'

export { constants } from 'node:fs'

/**
 * Flag of open(2) that Node has no constant for: O_PATH, a handle without access to the content. Nothing
 * blocks and nothing happens to the file, whatever it is. The same on all of Linux but alpha, parisc
 * and sparc.
 */
export const O_PATH = 0o10000000
export type { FileHandle } from 'node:fs/promises'

/**
 * The bytes of a path, as the system takes them.
 * @throws BackupError USAGE if no file can have that name
 */
export function pathBytes(path: string): Buffer {
  if (path.includes('\0')) throw usageError(path.replaceAll('\0', '\\x00'), 'has a NUL in its name')
  const bytes = encodeText(path)
  // A code unit that is neither a character nor a byte would become U+FFFD, and name another file.
  if (decodeText(bytes) !== path) throw usageError(showText(path), 'is not a valid name')
  return bytes
}

/** @param flags as open(2) has them; default: O_RDONLY */
export async function open(
  path: string,
  flags?: string | number,
  mode?: number,
): Promise<FileHandle> {
  return await fs.open(pathBytes(path), flags, mode)
}

/** Makes the names in an open directory durable. */
export async function syncDirectory(directory: FileHandle): Promise<void> {
  await directory.sync().catch((error: NodeJS.ErrnoException) => {
    // Some file systems (FUSE, network) have no directory to sync.
    if (error.code !== 'EINVAL') throw error
  })
}

/** Follows symbolic links. */
export async function stat(path: string): Promise<BigIntStats> {
  return await fs.stat(pathBytes(path), { bigint: true })
}

/** Of an open file, at once. */
export function statOpen(fd: number): BigIntStats {
  return fstatSync(fd, { bigint: true })
}

/** Does not follow a symbolic link. */
export async function lstat(path: string): Promise<BigIntStats> {
  return await fs.lstat(pathBytes(path), { bigint: true })
}

/** The absolute path without symbolic links. */
export async function realpath(path: string): Promise<string> {
  return decodeText(await fs.realpath(pathBytes(path), { encoding: 'buffer' }))
}

/** Target of a symbolic link. */
export async function readlink(path: string): Promise<string> {
  return decodeText(await fs.readlink(pathBytes(path), { encoding: 'buffer' }))
}

/** The names in a directory. */
export async function readdir(path: string): Promise<string[]> {
  return (await fs.readdir(pathBytes(path), { encoding: 'buffer' })).map(decodeText)
}

/** Of the file system that a file is in. */
export async function statfs(path: string): Promise<StatsFs> {
  return await fs.statfs(pathBytes(path))
}

export async function access(path: string, mode?: number): Promise<void> {
  await fs.access(pathBytes(path), mode)
}

export async function rename(from: string, to: string): Promise<void> {
  await fs.rename(pathBytes(from), pathBytes(to))
}

export async function link(from: string, to: string): Promise<void> {
  await fs.link(pathBytes(from), pathBytes(to))
}

export async function unlink(path: string): Promise<void> {
  await fs.unlink(pathBytes(path))
}

/** As lstat. */
export function lstatSync(path: string): BigIntStats {
  return lstatBytesSync(pathBytes(path), { bigint: true })
}

/** Bytes that may still be written to the file system of an open file, by this process's user. */
export async function freeBytes(handle: { fd: number }): Promise<number> {
  const { bavail, bsize } = await fs.statfs(pathBytes(descriptorPath(handle)))
  return bavail * bsize
}

/** All of a file, of which there is little: one that the kernel shows. */
export async function readFile(path: string): Promise<Buffer> {
  return await fs.readFile(pathBytes(path))
}

/** The arguments of this process as the kernel has them, each followed by a NUL. */
export function commandLineBytes(): Buffer {
  return readFileSync('/proc/self/cmdline')
}

/** A new directory of the program's own, below that for temporary files, which nobody else reads. */
export async function temporaryDirectory(prefix: string): Promise<string> {
  const path = join(tmpdir(), `${prefix}${randomBytes(8).toString('hex')}`)
  await mkdir(path, 0o700)
  return path
}

/** Removes a directory with all in it. */
export async function removeDirectory(path: string): Promise<void> {
  await fs.rm(pathBytes(path), { recursive: true, force: true })
}

export function unlinkSync(path: string): void {
  unlinkBytesSync(pathBytes(path))
}

export async function mkdir(path: string, mode?: number): Promise<void> {
  await fs.mkdir(pathBytes(path), { mode })
}

export async function rmdir(path: string): Promise<void> {
  await fs.rmdir(pathBytes(path))
}

/** The path under which the kernel shows an open file; opening it opens the same file again. */
export function descriptorPath({ fd }: { fd: number }): string {
  return `/proc/self/fd/${fd}`
}

/** The name of an open file, without symbolic links, as the kernel has it now. */
export async function nameOf(handle: { fd: number }): Promise<string> {
  return await readlink(descriptorPath(handle))
}

/** A path made absolute without access to the file system: `..` removes the part before it. */
export function absolute(path: string): string {
  return join(path.startsWith('/') ? '/' : workingDirectory(), path)
}

/** The working directory, which Node's `process.cwd()` decodes with loss. */
export function workingDirectory(): string {
  const told = process.cwd()
  if (!told.includes('\ufffd')) return told
  return decodeText(readlinkSync('/proc/self/cwd', { encoding: 'buffer' }))
}

/**
 * Writes to an open file that has no positions, such as a pipe, as much as it takes. Not blocking: a thread of
 * libuv's pool waits for the reader.
 * @returns bytes written
 */
export async function writeOpen(fd: number, bytes: Uint8Array): Promise<number> {
  return await new Promise((resolve, reject) => {
    write(fd, bytes, (error, written) => (error ? reject(error) : resolve(written)))
  })
}
