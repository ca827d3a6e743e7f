import { type BackupError, ioError, throwIfAborted } from '../errors.ts'
import { readdir } from '../files.ts'
import type { ControlOptions } from '../options.ts'
import { readJson } from './files.ts'
import { readForm } from './form.ts'
import { ReadLock } from './lock.ts'
import { imageName, machineDirectory, pointOf, recordName } from './names.ts'
import { readPruneJournal, recordDuring, temporaryImage } from './prune-journal.ts'
import { readAllJson } from './read-all.ts'
import { oldestFirst, POINT, type PointRecord, requireRecord } from './record.ts'

/** A machine's folder in a repository. */
export class MachineFolder {
  readonly machine: string
  /** Path. */
  readonly directory: string

  constructor(machine: string, directory: string) {
    this.machine = machine
    this.directory = directory
  }

  /**
   * The machine that a directory is of, whose name says no more than that it was too long: its records have
   * the whole name.
   * @throws BackupError BAD_RECORD, UNSUPPORTED, IO if none can be read
   */
  static async nameIn(directory: string): Promise<string | undefined> {
    if (!directory.includes('%-')) return undefined
    let failure: unknown
    for (const file of await namesIn(directory)) {
      if (pointOf(file) === undefined) continue
      try {
        const record = await readForm(`${directory}/${file}`, POINT)
        const machine = record?.machine
        if (machine !== undefined && directory.endsWith(`/${machineDirectory(machine)}`)) {
          return machine
        }
      } catch (error) {
        failure ??= error
      }
    }
    if (failure !== undefined) throw failure
    return undefined
  }

  /** Path of the file that is locked: see lock.ts. */
  get lockPath(): string {
    return `${this.directory}/.lock`
  }

  /**
   * Keeps images from being renamed or removed while they are read, until it is released.
   * @throws BackupError IO, ABORTED
   */
  async readLock(control?: ControlOptions): Promise<ReadLock> {
    return await ReadLock.take(this.lockPath, control)
  }

  /** Names of all files in it; none where there is no such folder. */
  async files(): Promise<string[]> {
    return await namesIn(this.directory)
  }

  async hasPoints(): Promise<boolean> {
    return (await this.files()).some((name) => pointOf(name) !== undefined)
  }

  /**
   * All points, oldest first. A broken record is an error: it may be what others build on.
   * @throws BackupError BAD_RECORD, UNSUPPORTED, IO, ABORTED
   */
  async points(signal?: AbortSignal): Promise<PointRecord[]> {
    const records: { time: number; record: PointRecord }[] = []
    const { machine, directory } = this
    const points = new Map((await this.files()).map((file) => [file, pointOf(file)]))
    const files = [...points.keys()].filter((file) => points.get(file) !== undefined)
    const now = await this.#duringPrune()
    for await (const batch of readAllJson(directory, files, POINT.most)) {
      throwIfAborted(signal, directory)
      for (const [file, value] of batch) {
        const of = { machine, point: points.get(file)! }
        const record = requireRecord(`${directory}/${file}`, value, of)
        records.push({ time: Date.parse(record.time), record: now(record) })
      }
    }
    records.sort((a, b) => a.time - b.time || oldestFirst(a.record, b.record))
    return records.map(({ record }) => record)
  }

  /**
   * @returns undefined if there is no such point
   * @throws BackupError BAD_RECORD, UNSUPPORTED, IO
   */
  async point(point: string): Promise<PointRecord | undefined> {
    const record = await this.written(point)
    return record && (await this.#duringPrune())(record)
  }

  /**
   * A record as its file has it: while a prune is under way, or was ended early, of some disks it may be that of the
   * image before.
   * @throws BackupError BAD_RECORD, UNSUPPORTED, IO
   */
  protected async written(point: string): Promise<PointRecord | undefined> {
    const path = `${this.directory}/${recordName(point)}`
    const value = await readJson(path, POINT.most)
    if (value === undefined) return undefined
    return requireRecord(path, value, { machine: this.machine, point })
  }

  /**
   * The way in which records are to be read now. Without a journal that can be read, records are as they are: of an
   * image that is another one by now, whoever reads it finds out.
   */
  async #duringPrune(): Promise<(record: PointRecord) => PointRecord> {
    const journal = await readPruneJournal(this.machine, this.directory).catch(unlessBroken)
    if (!journal) return (record) => record
    const files = new Set(await this.files())
    const isNew = (image: string) => !files.has(temporaryImage(image, journal.run))
    return (record) => recordDuring(journal, record, isNew)
  }

  /** Path of the image of a disk at a point, whether it is there or not. */
  imagePath(disk: string, point: string): string {
    return `${this.directory}/${imageName(disk, point)}`
  }
}

function unlessBroken(error: BackupError): undefined {
  if (!['BAD_RECORD', 'UNSUPPORTED'].includes(error.code)) throw error
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return []
    throw ioError(directory, error)
  }
}
