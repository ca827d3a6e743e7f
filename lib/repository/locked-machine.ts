import type { BigIntStats } from 'node:fs'
import { basename } from 'node:path'
import type { Target } from '../copy/target/target.ts'
import { BackupError, ioError } from '../errors.ts'
import { lstat } from '../files.ts'
import type { ControlOptions } from '../options.ts'
import { described, list, record, TEXT, whole } from '../schema.ts'
import { quoted } from '../text.ts'
import { jsonText, publishText, removeFiles } from './files.ts'
import { FILE_NAME, type Form, readForm, TIME } from './form.ts'
import { WriteLock } from './lock.ts'
import { MachineFolder } from './machine-folder.ts'
import { definitionName, isPointName, recordName } from './names.ts'
import {
  finishPrune,
  type PruneJournal,
  readPruneJournal,
  temporaryImage,
  writePruneJournal,
} from './prune-journal.ts'
import type { PointRecord } from './record.ts'

/** What a run is about to publish: a killed one leaves it. */
export const JOURNAL = '.run.json'
/** Of files that could not be made without a name, see lib/copy/target/temporary-file.ts. */
export const TEMPORARY = /^\..+\.[0-9a-f]{12}\.partial$/s

/** Files that get their names before a record says what they are. */
interface Journal {
  version: 1
  /** Id of the run, and of the record. */
  run: string
  point: string
  files: JournalFile[]
}

/** A file is removed only if it is this one: another may have taken the name. */
interface JournalFile {
  name: string
  /** Bytes. */
  size: number
  /** ISO 8601. */
  modified: string
}

const JOURNAL_FILE = record<JournalFile>(
  {
    name: FILE_NAME,
    size: described(whole(0), 'Bytes.'),
    modified: described(
      TIME,
      'When it was last written to: another file of the name is not removed.',
    ),
  },
  {},
  { open: true },
)

export const RUN_JOURNAL: Form<Journal> = {
  what: 'the journal of a run',
  version: 'version',
  most: 2 ** 20,
  rule: record<Journal>(
    {
      version: whole(1, 1),
      run: described(TEXT, 'Id of the run, which its record will have.'),
      point: described(FILE_NAME, 'The point whose files are about to get their names.'),
      files: described(list(JOURNAL_FILE), 'The images, and the definition if there is one.'),
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
 * point is complete, or a journal without its record, and removes what that names, nothing else. A prune has a
 * journal of its own, see prune-journal.ts, by which the next run finishes it.
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
    return files.some((name) => taken.includes(name) || isImageOf(point, name))
  }

  /**
   * To be called right before the files of a point, its images and its definition, get their names.
   * @param files complete
   * @throws BackupError IN_USE if the lock was lost, IO
   */
  async announce(
    { id, point }: Pick<PointRecord, 'id' | 'point'>,
    files: readonly Target[],
  ): Promise<void> {
    await this.#lock.requireHeld()
    const listed: JournalFile[] = []
    for (const file of files) {
      // A file server gives what it has got a time of its own.
      await file.sync()
      listed.push({
        name: basename(file.path),
        ...identityOf(await file.handle!.stat({ bigint: true })),
      })
    }
    const journal: Journal = { version: 1, run: id, point, files: listed }
    await publishText(`${this.directory}/${JOURNAL}`, jsonText(journal))
  }

  /**
   * Writes the record, synced under its name: the point exists when this resolves.
   * @throws BackupError TARGET_EXISTS, IO, IN_USE if the lock was lost: the point does not exist then, and its
   * files are to be withdrawn
   */
  async record(record: PointRecord): Promise<void> {
    await this.#lock.requireHeld()
    await publishText(`${this.directory}/${recordName(record.point)}`, jsonText(record))
    // It names files that a record names too: nothing is removed by it any more.
    await removeFiles(this.directory, [JOURNAL]).catch(() => {})
  }

  /**
   * Replaces images whose successors are there under temporary names, and removes points, while nobody reads.
   * @throws BackupError IN_USE if the lock was lost, IO, ABORTED. The temporary names are gone then; or there is the
   * journal, and the next run finishes it
   */
  async prune(journal: PruneJournal, control?: ControlOptions): Promise<void> {
    let isDecided = false
    try {
      await this.#lock.exclusive(async () => {
        await writePruneJournal(this.directory, journal)
        isDecided = true
        await finishPrune(this.directory, journal, (point) => this.written(point))
      }, control)
    } catch (error) {
      const names = journal.images.map((image) => temporaryImage(image, journal.run))
      if (!isDecided) await removeFiles(this.directory, names).catch(() => {})
      throw error
    }
  }

  /**
   * Finishes a prune that ended early, and removes what other runs left: what their journal names, unless there
   * is a record that does, and temporary files.
   * @returns the names of what was removed
   * @throws BackupError IO, BAD_RECORD, IN_USE if the lock was lost, ABORTED
   */
  async clean(control?: ControlOptions): Promise<string[]> {
    await this.#lock.requireHeld()
    const pruned = await this.#finishPrune(control)
    return [...pruned, ...(await this.#removeLeft())]
  }

  async #finishPrune(control?: ControlOptions): Promise<string[]> {
    const journal = await readPruneJournal(this.machine, this.directory)
    if (!journal) return []
    return await this.#lock.exclusive(
      () => finishPrune(this.directory, journal, (point) => this.written(point)),
      control,
    )
  }

  async #removeLeft(): Promise<string[]> {
    const left = (await this.files()).filter((name) => TEMPORARY.test(name))
    const journal = await this.#journal()
    if (!journal) return await removeFiles(this.directory, left)
    const record = await this.point(journal.point)
    const named = new Set(record?.disks.map(({ image }) => image))
    const definition = definitionName(journal.point)
    for (const file of journal.files) {
      const { name } = file
      const isOurs =
        name === definition ? !record : isImageOf(journal.point, name) && !named.has(name)
      if (isOurs && (await this.#isThere(file))) left.push(name)
    }
    const removed = await removeFiles(this.directory, left)
    await removeFiles(this.directory, [JOURNAL])
    return removed
  }

  /** Ends the lock. Never fails. */
  async close(): Promise<void> {
    await this.#lock.release()
  }

  /** Whether a file is the one that a run was about to name. */
  async #isThere({ name, size, modified }: JournalFile): Promise<boolean> {
    try {
      const found = identityOf(await lstat(`${this.directory}/${name}`))
      return found.size === size && found.modified === modified
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false
      throw ioError(`${this.directory}/${name}`, error)
    }
  }

  async #journal(): Promise<Journal | undefined> {
    const path = `${this.directory}/${JOURNAL}`
    const journal = await readForm(path, RUN_JOURNAL)
    if (!journal || isPointName(journal.point)) return journal
    const why = `is not ${RUN_JOURNAL.what}: point: ${quoted(journal.point)} is not the name of one`
    throw new BackupError('BAD_RECORD', path, why)
  }
}

function isImageOf(point: string, file: string): boolean {
  return file.endsWith(`.${point}.qcow2`)
}

/** Length and time of a file that nobody writes to any more. */
function identityOf(stats: Pick<BigIntStats, 'size' | 'mtimeMs'>) {
  return { size: Number(stats.size), modified: new Date(Number(stats.mtimeMs)).toISOString() }
}
