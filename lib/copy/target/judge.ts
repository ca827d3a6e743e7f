import type { BigIntStats } from 'node:fs'
import { BackupError, ioError } from '../../errors.ts'
import { constants, descriptorPath, type FileHandle, open } from '../../files.ts'
import { identityOf } from '../../image/file.ts'
import { lockFile, WRITING } from '../../image/locks.ts'
import { foreignSignature } from '../../image/signature.ts'
import { findShared, type StorageFile } from '../../image/storage.ts'
import { log } from '../../log.ts'
import { native } from '../../native.ts'
import { type Location, openEntry, pathIn } from './location.ts'

/** A file that is read meanwhile, and must not be the target. */
export interface SourceIdentity extends StorageFile {
  /** As messages name it. */
  readonly path: string
}

/**
 * Files a target may replace, so that swapped arguments do no harm: `image`: qcow2 images, empty
 * files, and devices that hold nothing else; `text`: files that hold no disk; `page`: files of HTML, and
 * empty ones; `disk`: any file or device.
 */
export type Replaceable = 'image' | 'text' | 'page' | 'disk'

/** The existing file at a target's name. */
export interface ExistingTarget {
  kind: 'file' | 'device'
  /** See SourceFile.identity. */
  identity: string
  /**
   * A file: open for reading, and locked as one that is written; undefined if it cannot be read. A
   * device: open for reading and writing, exclusively, and locked.
   */
  handle?: FileHandle
}

interface TargetRequest {
  force: boolean
  replaces: Replaceable
  sources: readonly SourceIdentity[]
}

const DOCTYPE = '<!doctype html'
const QCOW2_MAGIC = Buffer.from('514649fb', 'hex')

/**
 * Judges the existing file at a location. It is opened once, as names may change meanwhile.
 * @returns undefined if there is none; the caller closes its handle
 * @throws BackupError TARGET_EXISTS, BAD_TARGET, IN_USE, or IO if it cannot be read
 */
export async function judge(
  location: Location,
  wanted: TargetRequest,
): Promise<ExistingTarget | undefined> {
  const entry = await openIfAny(location)
  if (!entry) {
    log('target', () => `${location.path}: the name is free`)
    return undefined
  }
  let handle: FileHandle | undefined
  try {
    const { path } = location
    const stats = await entry.stat({ bigint: true })
    requireKind(path, stats)
    const identity = identityOf(stats)
    await requireNoSource(path, { identity, handle: entry }, wanted.sources)
    handle = await openForReading(entry)
    await requireReplaceable(path, stats, handle, wanted)
    if (!wanted.force) throw new BackupError('TARGET_EXISTS', path, 'exists', { hint: 'force' })
    // A running QEMU would go on with a file that has lost its name.
    if (handle) lockFile(handle, path, WRITING)
    if (stats.isBlockDevice()) {
      await handle?.close()
      handle = undefined
      handle = await openExclusively(path, entry)
      lockFile(handle, path, WRITING)
    }
    const kind = stats.isBlockDevice() ? 'device' : 'file'
    log('target', () => `${location.path}: a ${kind} that may be replaced, by force`)
    return { kind, identity, handle }
  } catch (error) {
    await handle?.close()
    throw ioError(location.path, error)
  } finally {
    await entry.close()
  }
}

async function openIfAny(location: Location): Promise<FileHandle | undefined> {
  try {
    return await openEntry(pathIn(location))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw ioError(location.path, error)
  }
}

function requireKind(path: string, stats: BigIntStats): void {
  const kind = wrongKind(stats)
  if (kind) throw new BackupError('BAD_TARGET', path, `is a ${kind}`)
}

function wrongKind(stats: BigIntStats): string | undefined {
  if (stats.isDirectory()) return 'directory'
  if (stats.isFIFO()) return 'named pipe'
  if (stats.isSocket()) return 'socket'
  if (stats.isCharacterDevice()) return 'character device'
  // It was none when the path was followed.
  if (stats.isSymbolicLink()) return 'symbolic link'
  return undefined
}

/** @throws BackupError BAD_TARGET if a source is on the storage that would be written to */
export async function requireNoSource(
  path: string,
  target: StorageFile,
  sources: readonly SourceIdentity[],
): Promise<void> {
  const source = await findShared(target, sources)
  if (!source) return
  if (source.identity === target.identity) {
    const also = source.path === path ? '' : `, also named ${source.path}`
    throw new BackupError('BAD_TARGET', path, `is the source${also}`)
  }
  const why = `is on the same storage as ${source.path}, which is read`
  throw new BackupError('BAD_TARGET', path, why)
}

/** Reopens the file for reading, by descriptor. It was judged before: not a FIFO or character device. */
async function openForReading(entry: FileHandle): Promise<FileHandle | undefined> {
  const flags = constants.O_RDONLY | constants.O_NONBLOCK
  // An unreadable file can still be replaced where its content does not matter.
  return await open(descriptorPath(entry), flags).catch(() => undefined)
}

/** O_EXCL on a block device: refused while it is mounted or part of another device. */
async function openExclusively(path: string, entry: FileHandle): Promise<FileHandle> {
  const flags = constants.O_RDWR | constants.O_EXCL | constants.O_NONBLOCK
  try {
    return await open(descriptorPath(entry), flags)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw ioError(path, error)
    const why = 'is in use: mounted, or part of another device'
    throw new BackupError('BAD_TARGET', path, why, { cause: error, errno: 'EBUSY' })
  }
}

async function requireReplaceable(
  path: string,
  stats: BigIntStats,
  handle: FileHandle | undefined,
  { force, replaces }: TargetRequest,
): Promise<void> {
  if (replaces === 'disk') return
  const why = await { image: whyNoImage, text: whyNoText, page: whyNoPage }[replaces](stats, handle)
  if (why) throw new BackupError(force ? 'BAD_TARGET' : 'TARGET_EXISTS', path, why)
}

/** Why the existing file must never be replaced, whatever the options. */
async function whyNoImage(stats: BigIntStats, handle?: FileHandle): Promise<string | undefined> {
  if (!handle) return 'exists and cannot be read, so its content is unknown; remove it first'
  const size = stats.isBlockDevice() ? native().deviceSize(handle.fd) : Number(stats.size)
  if (size === 0 || (await isImage(handle))) return undefined
  if (!stats.isBlockDevice())
    return 'exists and is not a qcow2 image; remove it if it is not needed'
  const found = await foreignSignature(handle, size)
  return found && `contains ${found}; wipe it first if it is not needed (wipefs --all)`
}

/** Why no list and no manifest must replace it. */
async function whyNoText(stats: BigIntStats, handle?: FileHandle): Promise<string | undefined> {
  if (stats.isBlockDevice()) return 'is a block device'
  if (!handle) return undefined
  const found = (await isImage(handle))
    ? 'a qcow2 image'
    : await foreignSignature(handle, Number(stats.size))
  return found && `exists and contains ${found}; remove it if it is not needed`
}

/** Why no page must replace it: any text may be somebody's record or definition. */
async function whyNoPage(stats: BigIntStats, handle?: FileHandle): Promise<string | undefined> {
  if (stats.isBlockDevice()) return 'is a block device'
  if (!handle) return 'exists and cannot be read, so its content is unknown; remove it first'
  const begins = DOCTYPE.length
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(begins), 0, begins, 0)
  if (stats.size === 0n || buffer.toString('latin1', 0, bytesRead).toLowerCase() === DOCTYPE) return
  return 'exists and is not a page of HTML; remove it if it is not needed'
}

async function isImage(handle: FileHandle): Promise<boolean> {
  const { length } = QCOW2_MAGIC
  const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, 0)
  return bytesRead === length && buffer.equals(QCOW2_MAGIC)
}
