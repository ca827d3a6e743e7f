import { hostname } from 'node:os'
import { BackupError, ioError } from '../errors.ts'
import { constants, type FileHandle, open } from '../files.ts'
import { native } from '../native.ts'
import { oneLine } from '../text.ts'
import { jsonText, publishText, readJson, removeFiles } from './files.ts'
import { MachineFolder } from './machine-folder.ts'
import { definitionName, imageName, isPointName, recordName } from './names.ts'
import type { PointRecord } from './record.ts'

/** Held by a run, and says by which. */
const LOCK = '.lock'
const MAX_HOLDER_BYTES = 1024
/** What a run is about to publish: a killed one leaves it. */
const JOURNAL = '.run.json'
const MAX_JOURNAL_BYTES = 2 ** 20
/** Of files that could not be made without a name, see lib/copy/target/temporary-file.ts. */
const TEMPORARY = /^\..+\.[0-9a-f]{12}\.partial$/s

/** Files that get their names before a record says what they are. */
interface Journal {
  version: 1
  /** Id of the run, and of the record. */
  run: string
  point: string
  disks: string[]
}

/**
 * A machine's folder, locked for one run.
 *
 * What is published is told beforehand, in `.run.json`: images and the definition get their names, the
 * record follows, and the journal goes. After a kill at any moment the next run finds either a record, and the
 * point is complete, or a journal without its record, and removes what that names, nothing else.
 */
export class LockedMachine extends MachineFolder {
  readonly #lock: FileHandle

  /** @throws BackupError IN_USE, IO */
  static async lock(machine: string, directory: string): Promise<LockedMachine> {
    const path = `${directory}/${LOCK}`
    try {
      // Through a link a file elsewhere would be emptied.
      const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW
      const lock = await open(path, flags, 0o600)
      try {
        if (!native().lockAlone(lock.fd)) throw inUse(machine, await holderOf(lock))
        await lock.truncate(0)
        await lock.write(JSON.stringify({ pid: process.pid, host: hostname() }), 0)
        return new LockedMachine(machine, directory, lock)
      } catch (error) {
        await lock.close()
        throw error
      }
    } catch (error) {
      throw ioError(path, error)
    }
  }

  private constructor(machine: string, directory: string, lock: FileHandle) {
    super(machine, directory)
    this.#lock = lock
  }

  /** Whether a file stands where one of a point would be. */
  async isTaken(point: string): Promise<boolean> {
    const taken = [recordName(point), definitionName(point)]
    const files = await this.files()
    return files.some((name) => taken.includes(name) || name.endsWith(`.${point}.qcow2`))
  }

  /**
   * To be called right before the images of a point get their names.
   * @throws BackupError IO
   */
  async announce({ id, point, disks }: { id: string; point: string; disks: readonly string[] }) {
    const journal: Journal = { version: 1, run: id, point, disks: [...disks] }
    await publishText(`${this.directory}/${JOURNAL}`, jsonText(journal))
  }

  /**
   * Writes the definition and the record, each synced under its name: the point exists when this
   * resolves.
   * @throws BackupError TARGET_EXISTS, IO: the point does not exist then, and its images are to be withdrawn
   */
  async record(record: PointRecord, definition?: string): Promise<void> {
    const { point } = record
    if (definition !== undefined) {
      await publishText(`${this.directory}/${definitionName(point)}`, definition)
    }
    await publishText(`${this.directory}/${recordName(point)}`, jsonText(record))
    // It names files that a record names too: nothing is removed by it any more.
    await removeFiles(this.directory, [JOURNAL]).catch(() => {})
  }

  /**
   * Removes what runs that ended early left: what their journal names, unless there is a record that does,
   * and temporary files.
   * @returns the names of what was removed
   * @throws BackupError IO, BAD_RECORD
   */
  async clean(): Promise<string[]> {
    const temporary = (await this.files()).filter((name) => TEMPORARY.test(name))
    const journal = await this.#journal()
    if (!journal) return await removeFiles(this.directory, temporary)
    const { run, point, disks } = journal
    const record = await this.point(point)
    const isStored = record?.id === run
    const named = new Set(record?.disks.map(({ image }) => image))
    const left = [...disks.map((disk) => imageName(disk, point)), definitionName(point)]
    const unnamed = record
      ? left.filter((name) => name.endsWith('.qcow2') && !named.has(name))
      : left
    const removed = await removeFiles(this.directory, [...temporary, ...(isStored ? [] : unnamed)])
    await removeFiles(this.directory, [JOURNAL])
    return removed
  }

  /** Ends the lock. Never fails. */
  async close(): Promise<void> {
    await this.#lock.close().catch(() => {})
  }

  async #journal(): Promise<Journal | undefined> {
    const path = `${this.directory}/${JOURNAL}`
    const value = await readJson(path, MAX_JOURNAL_BYTES)
    if (value === undefined) return undefined
    const { version, run, point, disks } = (value ?? {}) as Partial<Record<keyof Journal, unknown>>
    const isJournal =
      version === 1 &&
      typeof run === 'string' &&
      typeof point === 'string' &&
      isPointName(point) &&
      Array.isArray(disks) &&
      disks.every((disk) => typeof disk === 'string')
    if (!isJournal) throw new BackupError('BAD_RECORD', path, 'is not the journal of a run')
    return value as Journal
  }
}

/** What a run that has the lock says of itself. */
async function holderOf(lock: FileHandle): Promise<string> {
  try {
    const buffer = Buffer.alloc(MAX_HOLDER_BYTES)
    const { bytesRead } = await lock.read(buffer, 0, buffer.length, 0)
    const { pid, host } = JSON.parse(buffer.toString('utf8', 0, bytesRead))
    return Number.isInteger(pid) ? ` (process ${pid} on ${oneLine(String(host))})` : ''
  } catch {
    // It has just begun.
    return ''
  }
}

function inUse(machine: string, holder: string): BackupError {
  return new BackupError('IN_USE', machine, `another run is backing it up${holder}`)
}
