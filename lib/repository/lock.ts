/**
 * The locks of a machine's folder, on two bytes of its file `.lock`:
 *
 * - one that writes to the folder has the first, alone: a backup, prune, repair, the target of a copy;
 * - those that read images have the second, together: restore, verify, the source of a copy. Who renames or
 *   removes what a record names has it alone for that moment.
 *
 * They are the kernel's locks of an open file, which end with the process however that ends. What the file
 * says of the writer is for messages, and for other hosts: see lock-holder.ts. The file is never removed.
 */
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { BackupError, ioError, throwIfAborted } from '../errors.ts'
import { constants, type FileHandle, open } from '../files.ts'
import { log } from '../log.ts'
import { native } from '../native.ts'
import type { ControlOptions } from '../options.ts'
import { paced } from '../progress.ts'
import { describeHolder, HEARTBEAT_MS, ownHolder, readHolder, whyHeld } from './lock-holder.ts'

/** Far behind the content: a byte that is locked on an SMB share cannot be read by others. */
const WRITER = 2 ** 30
const READERS = WRITER + 1

/** Errors of fcntl(2) where a file system has no locks. */
const NO_LOCKS = ['ENOLCK', 'EOPNOTSUPP', 'ENOTSUP', 'ENOSYS', 'EINVAL']
/** Errors where nothing can be written. */
const READ_ONLY = ['EROFS', 'EACCES', 'EPERM']

const [MIN_WAIT_MS, MAX_WAIT_MS] = [20, 1000]

/** Held by the one that writes to a machine's folder. */
export class WriteLock {
  readonly #machine: string
  readonly #path: string
  readonly #file: FileHandle
  /** What the file says as long as the lock is held. */
  readonly #text: string
  readonly #heart: NodeJS.Timeout
  #beating: Promise<void> | undefined

  /**
   * @param machine for messages
   * @param path of the file
   * @throws BackupError IN_USE if another has it, UNSUPPORTED where there are no locks, IO
   */
  static async take(machine: string, path: string): Promise<WriteLock> {
    try {
      // Through a link a file elsewhere would be written to.
      const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW
      const file = await open(path, flags, 0o600)
      try {
        const isLocked = tryLock(path, file, WRITER, 'exclusive')
        const before = await readHolder(file)
        const why = isLocked ? await whyHeld(before, file, dirname(path)) : describeHolder(before)
        if (why !== undefined) throw inUse(machine, why)
        const text = JSON.stringify(await ownHolder())
        await writeText(file, text)
        log(
          'lock',
          () => `${path}: locked for writing${before && `, after${describeHolder(before)}`}`,
        )
        const lock = new WriteLock(machine, path, file, text)
        // Somebody may have removed the file, and another locked a new one.
        await lock.requireHeld()
        return lock
      } catch (error) {
        await file.close()
        throw error
      }
    } catch (error) {
      throw ioError(path, error)
    }
  }

  private constructor(machine: string, path: string, file: FileHandle, text: string) {
    this.#machine = machine
    this.#path = path
    this.#file = file
    this.#text = text
    this.#heart = setInterval(() => {
      this.#beating = this.#beat()
    }, HEARTBEAT_MS).unref()
  }

  /**
   * To be called before anything gets or loses its name: a host that was cut off from its file server for
   * minutes may have been taken for dead.
   * @throws BackupError IN_USE if another has the lock by now, IO
   */
  async requireHeld(): Promise<void> {
    const found = await this.#read()
    if (found !== this.#text)
      throw inUse(this.#machine, `${describeHolder(found)}; the lock was lost`)
  }

  /**
   * Does what readers must not see half done, as soon as there are none; until it is done none begins. Reports
   * the phase `wait` meanwhile. To be kept short: restores wait for it.
   * @throws BackupError IN_USE if the lock was lost, IO, ABORTED; what `work` throws
   */
  async exclusive<T>(work: () => Promise<T>, control: ControlOptions = {}): Promise<T> {
    await waitFor(this.#path, this.#file, 'exclusive', control)
    try {
      await this.requireHeld()
      return await work()
    } finally {
      native().lockByte(this.#file.fd, READERS, 'none')
    }
  }

  /** Never fails. */
  async release(): Promise<void> {
    clearInterval(this.#heart)
    await this.#beating
    try {
      // Empty: the end was clean.
      if ((await this.#read()) === this.#text) await this.#file.truncate(0)
    } catch {
      // Another host waits for ten minutes then.
    }
    await this.#file.close().catch(() => {})
  }

  /** By the server's clock, so it is written to: utimes(2) would set this host's time. */
  async #beat(): Promise<void> {
    try {
      if ((await this.#read()) === this.#text) await writeText(this.#file, this.#text)
    } catch (error) {
      log('lock', () => `${this.#path}: no sign of life: ${(error as Error).message}`)
    }
  }

  /** The content now, which a network file system shows to those that open the file anew. */
  async #read(): Promise<string> {
    try {
      const file = await open(this.#path, constants.O_RDONLY | constants.O_NOFOLLOW)
      return await readHolder(file).finally(() => file.close())
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return ''
      throw ioError(this.#path, error)
    }
  }
}

/** Held, together with others, by those that read images of a machine. */
export class ReadLock {
  readonly #file: FileHandle | undefined

  /**
   * Waits while images are renamed or removed, and reports the phase `wait` meanwhile.
   *
   * Where there is no file of a lock and none can be made, as on read-only media, nothing is locked: no run has
   * ever written there, since the file is the first that one makes. Where the file cannot be opened, or
   * the file system has no locks, a prune by somebody else is possible meanwhile. Such a reader may find an image
   * gone, and fails; it reads nothing wrong, as each image that it has open is compared with its record, and
   * an open file stays what it is.
   * @param path of the file
   * @throws BackupError IO, ABORTED
   */
  static async take(path: string, control: ControlOptions = {}): Promise<ReadLock> {
    const file = await openToRead(path)
    if (!file) return new ReadLock(undefined)
    try {
      await waitFor(path, file, 'shared', control)
      return new ReadLock(file)
    } catch (error) {
      await file.close()
      if (error instanceof BackupError && error.code === 'UNSUPPORTED')
        return new ReadLock(undefined)
      throw error
    }
  }

  private constructor(file: FileHandle | undefined) {
    this.#file = file
  }

  /** Never fails. */
  async release(): Promise<void> {
    await this.#file?.close().catch(() => {})
  }
}

/** @returns undefined if nothing can be locked */
async function openToRead(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EACCES') return undefined
    if (code !== 'ENOENT') throw ioError(path, error)
  }
  try {
    return await open(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    // Without a folder there is nothing to read, which the reader says.
    if (code === 'ENOENT' || READ_ONLY.includes(code!)) return undefined
    throw ioError(path, error)
  }
}

/** Waits for the lock of those that read. */
async function waitFor(
  path: string,
  file: FileHandle,
  kind: 'exclusive' | 'shared',
  { signal, onProgress }: ControlOptions,
): Promise<void> {
  const report = paced(onProgress)
  for (let wait = MIN_WAIT_MS; !tryLock(path, file, READERS, kind); wait *= 2) {
    if (wait === MIN_WAIT_MS) log('lock', () => `${path}: waiting for ${kind} use`)
    report?.({ phase: 'wait', position: 0, size: 0, dataBytes: 0 }, true)
    await sleep(Math.min(wait, MAX_WAIT_MS), undefined, { signal }).catch(() => {})
    throwIfAborted(signal, path)
  }
}

/** @throws BackupError UNSUPPORTED where there are no locks, IO */
function tryLock(
  path: string,
  file: FileHandle,
  byte: number,
  kind: 'exclusive' | 'shared',
): boolean {
  try {
    return native().lockByte(file.fd, byte, kind)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (!NO_LOCKS.includes(code!)) throw ioError(path, error)
    const why =
      'cannot be locked: this file system, as it is mounted, has no locks, without which two runs could ' +
      'write to a repository at once'
    throw new BackupError('UNSUPPORTED', path, why, { cause: error, errno: code })
  }
}

/** Never empty in between. */
async function writeText(file: FileHandle, text: string): Promise<void> {
  const bytes = Buffer.from(text)
  await file.write(bytes, 0, bytes.length, 0)
  await file.truncate(bytes.length)
  await file.datasync()
}

function inUse(machine: string, holder: string): BackupError {
  return new BackupError('IN_USE', machine, `another run writes to its folder${holder}`)
}
