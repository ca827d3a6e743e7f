/**
 * The locks by which QEMU keeps two processes from writing the same image (its block/file-posix.c).
 * A process that has an image open holds a shared lock of byte 100 + n for each permission n that it uses,
 * and of byte 200 + n for each that it denies to others. It is refused if others hold the
 * byte that contradicts one of its own.
 */
import type { EventEmitter } from 'node:events'
import { BackupError } from '../errors.ts'
import { type FileHandle, statOpen } from '../files.ts'
import { log } from '../log.ts'
import { native } from '../native.ts'
import { identityOf, type OpenFile, toOpenFile } from './file.ts'

/** Numbers of QEMU's permissions. */
const READ = 0
const WRITE = 1
const RESIZE = 3
const NAMES: Record<number, string> = {
  [READ]: 'consistent read',
  [WRITE]: 'write',
  [RESIZE]: 'resize',
}
const USED = 100
const DENIED = 200

/** Our use of an image, and uses denied to others. */
export interface Use {
  uses: readonly number[]
  denies: readonly number[]
}

/** Reading while nobody writes: the content is consistent. */
export const READING: Use = { uses: [READ], denies: [WRITE, RESIZE] }
/** Reading whatever others do. */
export const SHARED_READING: Use = { uses: [READ], denies: [] }
/** Writing, alone. */
export const WRITING: Use = { uses: [READ, WRITE, RESIZE], denies: [WRITE, RESIZE] }

/** Files that this thread has locked, by the names that messages have for them. */
const held = new Map<FileHandle, string>()

/**
 * Locks an open file for a use. The locks last until it is closed.
 * @param name of the file, for messages
 * @throws BackupError IN_USE if others have it open in a conflicting way; IO
 */
export function lockFile(handle: FileHandle, name: string, { uses, denies }: Use): void {
  const locks = [...uses.map((n) => USED + n), ...denies.map((n) => DENIED + n)]
  const tests = [...uses.map((n) => DENIED + n), ...denies.map((n) => USED + n)]
  const byte = native().lockFile(handle.fd, locks, tests)
  log('lock', () => {
    const names = (of: readonly number[]) => of.map((n) => NAMES[n]).join(', ') || 'nothing'
    const what = `${names(uses)}; denying others ${names(denies)}`
    return `${name}: ${byte < 0 ? 'locked' : `refused at byte ${byte}`} for ${what}`
  })
  if (byte >= 0) throw inUse(handle, name, byte)
  // Node's types do not tell that a handle emits events.
  const emitter = handle as FileHandle & Pick<EventEmitter, 'once'>
  if (!held.has(handle)) emitter.once('close', () => held.delete(handle))
  held.set(handle, name)
}

/**
 * Locks a file for a use. Data read before the lock was taken may have changed.
 * @param name of the file, for messages
 * @returns the file as it is under the lock
 * @throws BackupError IN_USE, IO
 */
export async function lockOpened(file: OpenFile, use: Use, name = file.path): Promise<OpenFile> {
  lockFile(file.handle, name, use)
  return await toOpenFile(file.path, file.handle)
}

/** Whether another process has an open file for writing, as QEMU's locks show. */
export function isWritten(handle: FileHandle): boolean {
  return native().lockFile(handle.fd, [], [USED + WRITE]) >= 0
}

/** The name by which this thread itself has the file locked, if it has. */
function ownName({ fd }: FileHandle): string | undefined {
  const identity = identityOf(statOpen(fd))
  for (const [handle, name] of held) if (identityOf(statOpen(handle.fd)) === identity) return name
  return undefined
}

/** @param byte that others have locked */
function inUse(handle: FileHandle, name: string, byte: number): BackupError {
  // They use something we deny, or deny something we use.
  const shared = byte < DENIED
  const permission = NAMES[byte - (shared ? USED : DENIED)]
  const own = ownName(handle)
  const why = own === undefined ? inUseByOthers(shared) : inUseByUs(shared, name, own)
  const lock = `${shared ? 'shared ' : ''}"${permission}" lock`
  const question = `Is another process using the image [${name}]?`
  const qemu = `Failed to get ${lock}\n${question}`
  return new BackupError('IN_USE', name, why, {
    qemu,
    hint: shared && own === undefined ? 'forceShare' : undefined,
  })
}

function inUseByOthers(shared: boolean): string {
  return shared
    ? 'is open for writing in another process; stop it, or back up through its NBD export'
    : 'is in use by another process'
}

/** One call was given a file twice, or two calls were given one. */
function inUseByUs(shared: boolean, name: string, own: string): string {
  const how = shared ? 'open for writing' : 'in use'
  return name === own
    ? `is ${how} here already`
    : `is the same file as ${own}, which is ${how} here already`
}
