import { BackupError } from '../errors.ts'
import type { ControlOptions } from '../options.ts'
import { described, list, record, TEXT, whole } from '../schema.ts'
import { quoted } from '../text.ts'
import { jsonText, publishText, removeFiles } from './files.ts'
import { FILE_NAME, type Form, readForm } from './form.ts'
import { WriteLock } from './lock.ts'
import { MachineFolder } from './machine-folder.ts'
import { definitionName, imageName, isPointName, recordName } from './names.ts'
import type { PointRecord } from './record.ts'

/** What a run is about to publish: a killed one leaves it. */
const JOURNAL = '.run.json'
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

export const RUN_JOURNAL: Form<Journal> = {
  what: 'the journal of a run',
  version: 'version',
  most: 2 ** 20,
  rule: record<Journal>(
    {
      version: whole(1, 1),
      run: described(TEXT, 'Id of the run, which its record will have.'),
      point: described(FILE_NAME, 'The point whose files are about to get their names.'),
      disks: described(list(TEXT), 'Names of the disks whose images they are.'),
    },
    {},
    { open: true },
  ),
}

/**
 * A machine's folder, locked for one run.
 *
 * What is published is told beforehand, in `.run.json`: images and the definition get their names, the
 * record follows, and the journal goes. After a kill at any moment the next run finds either a record, and the
 * point is complete, or a journal without its record, and removes what that names, nothing else.
 */
export class LockedMachine extends MachineFolder {
  readonly #lock: WriteLock

  /**
   * Takes the lock.
   * @throws BackupError IN_USE if another run has it, UNSUPPORTED where there are no locks, IO
   */
  static async lock(machine: string, directory: string): Promise<LockedMachine> {
    const folder = new MachineFolder(machine, directory)
    return new LockedMachine(folder, await WriteLock.take(machine, folder.lockPath))
  }

  private constructor({ machine, directory }: MachineFolder, lock: WriteLock) {
    super(machine, directory)
    this.#lock = lock
  }

  /**
   * Does what those that read images must not see half done: see WriteLock.exclusive.
   * @throws BackupError IN_USE if the lock was lost, IO, ABORTED; what `work` throws
   */
  async exclusive<T>(work: () => Promise<T>, control?: ControlOptions): Promise<T> {
    return await this.#lock.exclusive(work, control)
  }

  /** Whether a file stands where one of a point would be. */
  async isTaken(point: string): Promise<boolean> {
    const taken = [recordName(point), definitionName(point)]
    const files = await this.files()
    return files.some((name) => taken.includes(name) || name.endsWith(`.${point}.qcow2`))
  }

  /**
   * To be called right before the images of a point get their names.
   * @throws BackupError IN_USE if the lock was lost, IO
   */
  async announce({ id, point, disks }: { id: string; point: string; disks: readonly string[] }) {
    await this.#lock.requireHeld()
    const journal: Journal = { version: 1, run: id, point, disks: [...disks] }
    await publishText(`${this.directory}/${JOURNAL}`, jsonText(journal))
  }

  /**
   * Writes the definition and the record, each synced under its name: the point exists when this
   * resolves.
   * @throws BackupError TARGET_EXISTS, IO, IN_USE if the lock was lost: the point does not exist then, and its images are to be withdrawn
   */
  async record(record: PointRecord, definition?: string): Promise<void> {
    const { point } = record
    await this.#lock.requireHeld()
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
   * @throws BackupError IO, BAD_RECORD, IN_USE if the lock was lost
   */
  async clean(): Promise<string[]> {
    await this.#lock.requireHeld()
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
    await this.#lock.release()
  }

  async #journal(): Promise<Journal | undefined> {
    const path = `${this.directory}/${JOURNAL}`
    const journal = await readForm(path, RUN_JOURNAL)
    if (!journal || isPointName(journal.point)) return journal
    const why = `is not ${RUN_JOURNAL.what}: point: ${quoted(journal.point)} is not the name of one`
    throw new BackupError('BAD_RECORD', path, why)
  }
}
