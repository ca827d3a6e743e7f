import type { Target } from '../copy/target/target.ts'
import { BackupError, ioError } from '../errors.ts'
import type { ControlOptions } from '../options.ts'
import { jsonText, publishText, removeFiles } from './files.ts'
import { WriteLock } from './lock.ts'
import { MachineFolder } from './machine-folder.ts'
import { definitionName, imageOf, recordName } from './names.ts'
import {
  finishPrune,
  type PruneJournal,
  readPruneJournal,
  temporaryImage,
  writePruneJournal,
} from './prune-journal.ts'
import type { PointRecord } from './record.ts'
import { leftByRuns, RUN_JOURNAL_NAME, writeRunJournal } from './run-journal.ts'

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
    return files.some((name) => taken.includes(name) || imageOf(name)?.point === point)
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
    await writeRunJournal(this.directory, { run: id, point }, files)
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
    await removeFiles(this.directory, [RUN_JOURNAL_NAME]).catch(() => {})
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
      if (isDecided) throw unfinished(this.directory, error)
      const names = journal.images.map((image) => temporaryImage(image, journal.run))
      await removeFiles(this.directory, names).catch(() => {})
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
    const removed = await removeFiles(this.directory, await leftByRuns(this))
    await removeFiles(this.directory, [RUN_JOURNAL_NAME])
    return removed
  }

  /** Ends the lock. Never fails. */
  async close(): Promise<void> {
    await this.#lock.release()
  }
}

/** A prune that failed after it was decided. */
function unfinished(directory: string, error: unknown): BackupError {
  const { code, what, why, errno } = ioError(directory, error)
  const more = `${why}; all points that stay can be restored, and the next run finishes the prune`
  return new BackupError(code, what, more, { cause: error, errno })
}
