import { BackupError, ioError } from '../../errors.ts'
import { lstat } from '../../files.ts'
import type { ControlOptions } from '../../options.ts'
import { listed, quoted } from '../../text.ts'
import { renameFiles } from '../files.ts'
import { readForm } from '../form.ts'
import { type Inventory, takeInventory } from '../inventory.ts'
import { LockedMachine } from '../locked-machine.ts'
import type { MachineFolder } from '../machine-folder.ts'
import { definitionOf, imageOf, recordName } from '../names.ts'
import {
  PRUNE_JOURNAL_NAME,
  type PruneJournal,
  readPruneJournal,
  temporaryImage,
} from '../prune-journal.ts'
import { POINT, type PointRecord } from '../record.ts'
import { isTemporary, leftByRuns, RUN_JOURNAL_NAME, readRunJournal } from '../run-journal.ts'
import { type LostPoint, rebuildRecord } from './rebuild-record.ts'
import type { RepairStep } from './step.ts'

/** How a machine's folder is repaired. */
export interface RepairJob extends ControlOptions {
  dryRun: boolean
}

const MAX_LISTED = 10

type Step = Omit<RepairStep, 'machine' | 'done'>

/** Failures that are no folder's own. */
const OF_THE_CALL: readonly BackupError['code'][] = ['ABORTED', 'CALLBACK', 'INTERNAL']

/**
 * Puts right what can be in a machine's folder. It is locked as for a backup, in a dry run as for a restore.
 * @throws BackupError ABORTED
 */
export async function* repairMachine(
  folder: MachineFolder,
  job: RepairJob,
): AsyncGenerator<RepairStep, void, undefined> {
  const { machine, directory } = folder
  try {
    const locked = job.dryRun ? undefined : await LockedMachine.lock(machine, directory)
    const lock = locked ? undefined : await folder.readLock(job)
    try {
      for await (const step of new Repair(folder, locked, job).run()) {
        yield { machine, ...step, done: locked !== undefined && step.action !== 'leave' }
      }
    } finally {
      await locked?.close()
      await lock?.release()
    }
  } catch (error) {
    yield { machine, ...leave(directory, error), done: false }
  }
}

class Repair {
  readonly #folder: MachineFolder
  /** Undefined in a dry run. */
  readonly #locked: LockedMachine | undefined
  readonly #control: ControlOptions

  constructor(folder: MachineFolder, locked: LockedMachine | undefined, job: RepairJob) {
    this.#folder = folder
    this.#locked = locked
    this.#control = { signal: job.signal, onProgress: job.onProgress }
  }

  async *run(): AsyncGenerator<Step> {
    yield* this.#clean()
    const inventory = await takeInventory(this.#folder, this.#control.signal)
    const known = [...inventory.points]
    yield* this.#rebuild(lostPoints(inventory), known)
    yield* this.#leaveOthers(inventory, new Set(known.map(({ point }) => point)))
  }

  /**
   * What runs left that were killed. Without a journal nobody knows what its run was about: what a backup named are
   * orphans, a prune ends where it was, and nothing is removed.
   */
  async *#clean(): AsyncGenerator<Step> {
    const { machine, directory } = this.#folder
    const run = await readRunJournal(directory).catch(faultOf)
    if (isBroken(run)) yield await this.#setAside(RUN_JOURNAL_NAME, run)
    const prune = await readPruneJournal(machine, directory).catch(faultOf)
    if (isBroken(prune)) yield await this.#setAside(PRUNE_JOURNAL_NAME, prune)
    const journal = prune instanceof BackupError ? undefined : prune
    const names = this.#locked
      ? await this.#locked.clean(this.#control)
      : await this.#leftNames(journal, isBroken(run))
    const when = this.#locked ? '' : ', if none is under way'
    if (journal) {
      const points = listed(journal.remove, MAX_LISTED, ({ point }) => quoted(point))
      const why = `a prune was killed that removes ${points || 'nothing'}${when}`
      yield { action: 'finish', file: `${directory}/${PRUNE_JOURNAL_NAME}`, why }
    }
    const why = `was left by a run that was killed${when}`
    for (const name of names) yield { action: 'remove', file: `${directory}/${name}`, why }
  }

  /** What `clean` would remove. */
  async #leftNames(prune: PruneJournal | undefined, isUnknown: boolean): Promise<string[]> {
    const files = await this.#folder.files()
    const names = isUnknown ? files.filter(isTemporary) : await leftByRuns(this.#folder)
    // They take the places of others, if the prune is whole.
    const isNew = (name: string) =>
      prune?.images.some((image) => temporaryImage(image, prune.run) === name)
    const going =
      prune?.remove.flatMap(({ point, files: own }) => [recordName(point), ...own]) ?? []
    return [...going.filter((name) => files.includes(name)), ...names.filter((one) => !isNew(one))]
  }

  /** @param known receives the records that are made, on which others may build */
  async *#rebuild(lost: readonly Lost[], known: PointRecord[]): AsyncGenerator<Step> {
    const { directory } = this.#folder
    let pending = lost
    // Those that build on others are made after them.
    for (let before = Number.POSITIVE_INFINITY; pending.length < before; ) {
      before = pending.length
      const still: Lost[] = []
      for (const one of pending) {
        const record = await this.#rebuilt(one, known).catch(faultOf)
        if (record instanceof BackupError) {
          still.push({ ...one, fault: record })
          continue
        }
        const name = recordName(one.point)
        if (one.broken) yield await this.#setAside(name, one.broken, one.point)
        await this.#locked?.record(record)
        known.push(record)
        const why = 'is made from the images of the point; its bitmap is not known from them'
        yield { action: 'rebuild', point: one.point, file: `${directory}/${name}`, why }
      }
      pending = still
    }
    for (const { point, broken, fault } of pending) {
      const file = `${directory}/${recordName(point)}`
      const faults = [broken, fault].flatMap((one) => (one ? [whyOf(file, one)] : []))
      yield { action: 'leave', point, file, why: faults.join('; ') }
    }
  }

  /** @throws BackupError */
  async #rebuilt(lost: Lost, known: readonly PointRecord[]): Promise<PointRecord> {
    const path = `${this.#folder.directory}/${recordName(lost.point)}`
    // One of another machine, or point, is whole: somebody has given it this name.
    const record = lost.broken && (await readForm(path, POINT).catch(() => undefined))
    const { machine } = this.#folder
    if (record && (record.machine !== machine || record.point !== lost.point)) {
      throw new BackupError('BAD_RECORD', path, 'is whole: give it and its images back their names')
    }
    return await rebuildRecord(this.#folder, lost, known, this.#control)
  }

  /** @param recorded points that have a record by now */
  async *#leaveOthers(
    { points, broken, orphans }: Inventory,
    recorded: ReadonlySet<string>,
  ): AsyncGenerator<Step> {
    const { directory } = this.#folder
    for (const { point, error } of broken) {
      if (error.code !== 'BAD_RECORD')
        yield leave(`${directory}/${recordName(point)}`, error, point)
    }
    const had = new Set(points.map(({ point }) => point))
    for (const name of orphans) {
      const file = `${directory}/${name}`
      const point = imageOf(name)?.point ?? definitionOf(name)!
      if (had.has(point)) {
        yield { action: 'leave', point, file, why: 'is of a point whose record does not name it' }
      } else if (!imageOf(name) && !recorded.has(point)) {
        yield { action: 'leave', point, file, why: 'is a definition, without the disks' }
      }
    }
    for (const { point, disks } of points) {
      for (const { image } of disks) {
        const file = `${directory}/${image}`
        const fault = await lstat(file).then(
          () => undefined,
          (error) => ioError(file, error),
        )
        if (fault) yield leave(file, fault, point)
      }
    }
  }

  /** Gives a file that cannot be read another name, so that all else goes on, and it is not lost. */
  async #setAside(name: string, { why }: BackupError, point?: string): Promise<Step> {
    const { directory } = this.#folder
    const taken = await this.#folder.files()
    let to = `${name}.broken`
    for (let number = 2; taken.includes(to); number++) to = `${name}.broken-${number}`
    if (this.#locked) await renameFiles(directory, [[name, to]])
    const file = `${directory}/${name}`
    return { action: 'set-aside', ...(point && { point }), file, to: `${directory}/${to}`, why }
  }
}

/** A point that has images, and no record that can be read. */
interface Lost extends LostPoint {
  /** What is wrong with the one that there is. */
  broken?: BackupError
  /** Why it cannot be made again. */
  fault?: BackupError
}

function lostPoints({ points, broken, orphans }: Inventory): Lost[] {
  const lost = new Map<string, Lost & { images: string[] }>()
  for (const { point, error, images } of broken) {
    if (error.code === 'BAD_RECORD') lost.set(point, { point, images, broken: error })
  }
  const had = new Set(points.map(({ point }) => point))
  for (const name of orphans) {
    const point = imageOf(name)?.point
    if (point === undefined || had.has(point)) continue
    const known = lost.get(point) ?? { point, images: [] }
    known.images.push(name)
    lost.set(point, known)
  }
  return [...lost.values()].sort((a, b) => (a.point < b.point ? -1 : 1))
}

function isBroken(read: unknown): read is BackupError {
  return read instanceof BackupError && read.code === 'BAD_RECORD'
}

function leave(file: string, error: unknown, point?: string): Step {
  const why = whyOf(file, faultOf(error))
  return { action: 'leave', ...(point !== undefined && { point }), file, why }
}

function whyOf(file: string, { what, why, message }: BackupError): string {
  return what === file ? why : message
}

/** @throws what is no failure of a file */
function faultOf(error: unknown): BackupError {
  const fault = ioError('', error)
  if (OF_THE_CALL.includes(fault.code)) throw fault
  return fault
}
