/**
 * A backup run. What it changes, in this order, and what a kill in between leaves:
 *
 * 1. The repository's folder of the machine is locked; what earlier runs left in it and in the machine
 *    is removed.
 * 2. The point in time is made, and with it a bitmap begins on each disk. The bitmap of the last backup goes
 *    on. Killed from here on: the machine has the new bitmap, marked with the run's id, for which there is
 *    no record: the next run removes it.
 * 3. Images without names are written, and vanish with the process.
 * 4. A journal says which names are about to be given; the images and the definition get them, all or none.
 *    Killed from here on: the next run removes what the journal names.
 * 5. The record gets its name, and has the run's id: the point exists. Killed from here on: the next run
 *    finds the new bitmap marked with the id of a record, and lets it stay; and it removes the old one, as all
 *    bitmaps of earlier points of which no disk needs one.
 * 6. The journal goes, and the machine is told to remove all but the new bitmaps.
 */
import { randomBytes } from 'node:crypto'
import { type CopySession, publishSessions } from '../backup/session.ts'
import { TotalProgress } from '../backup/total-progress.ts'
import type { CopyResult } from '../backup/types.ts'
import type { Target } from '../copy/target/target.ts'
import { messageOf, throwIfAborted, withNotes } from '../errors.ts'
import type { Machine, PointInTime } from '../machine/machine.ts'
import { stageText } from '../repository/files.ts'
import type { LockedMachine } from '../repository/locked-machine.ts'
import { definitionName, imageName, recordName } from '../repository/names.ts'
import { ownVersion } from '../repository/own-version.ts'
import { modifiedOf } from '../repository/parent-images.ts'
import type { DiskRecord, PointRecord } from '../repository/record.ts'
import type { Repository } from '../repository/repository.ts'
import { chooseDisks, choosePoint } from './choose.ts'
import { cleanUp } from './clean-up.ts'
import { copyDisks, type DiskTask } from './copy-disks.ts'
import { type Decision, decideAll } from './decide.ts'
import { obsoleteBitmaps } from './obsolete.ts'
import { ScratchWatch } from './scratch.ts'
import type { BackupMachineOptions, BackupMachineResult, DiskBackup } from './types.ts'

/**
 * Backs up a machine, all disks of one instant, into a repository.
 * @throws BackupError; the point does not exist then, and the next incremental backup has its changes too
 */
export async function backupMachine(
  machine: Machine,
  repository: Repository,
  options: BackupMachineOptions = {},
): Promise<BackupMachineResult> {
  const folder = await repository.lock(machine.name)
  try {
    return await new Run(machine, folder, options).run()
  } finally {
    await folder.close()
  }
}

class Run {
  readonly #machine: Machine
  readonly #folder: LockedMachine
  readonly #options: BackupMachineOptions
  readonly #id = randomBytes(6).toString('hex')
  readonly #started = performance.now()
  readonly #notes: string[] = []

  constructor(machine: Machine, folder: LockedMachine, options: BackupMachineOptions) {
    this.#machine = machine
    this.#folder = folder
    this.#options = options
  }

  async run(): Promise<BackupMachineResult> {
    const [machine, folder, options] = [this.#machine, this.#folder, this.#options]
    const points = await this.#clean()
    const all = await machine.disks(options.signal)
    const disks = chooseDisks(machine, all, options)
    const decisions = await decideAll(machine, disks, folder, points, options)
    const point = await choosePoint(folder, all, options)
    const frozen = await machine.freeze(this.#freezeOptions(decisions, point))
    this.#notes.push(...frozen.notes)
    let result: BackupMachineResult
    try {
      result = await this.#store(frozen, decisions, point)
    } catch (error) {
      throw withNotes(error, [
        ...(await frozen.fail()),
        ...(await folder.clean().then(
          () => [],
          (left) => [messageOf(left)],
        )),
      ])
    }
    const remove = options.old === 'keep' ? [] : obsoleteBitmaps(points, all, result.disks)
    this.#notes.push(...(await frozen.succeed({ remove }).catch((error) => [messageOf(error)])))
    return {
      ...result,
      elapsedSeconds: (performance.now() - this.#started) / 1000,
      notes: this.#notes,
    }
  }

  /** Removes what runs before left; returns the machine's points. */
  async #clean(): Promise<PointRecord[]> {
    const cleaned = await cleanUp(this.#machine, this.#folder, this.#options.signal)
    const { files, leftovers, points } = cleaned
    if (files.length > 0) {
      this.#notes.push(`removed what a run before left in the repository: ${files.join(', ')}`)
    }
    if (leftovers.length > 0) {
      const what = leftovers.map(({ kind, name, disk }) => {
        return `${kind} ${name}${disk ? ` of ${disk}` : ''}`
      })
      this.#notes.push(`cleaned what a run before left in the machine: ${what.join(', ')}`)
    }
    return points
  }

  #freezeOptions(decisions: readonly Decision[], point: string) {
    const { quiesce, scratch, onCbwError, cbwTimeout, minClusterSize, recipe } = this.#options
    const { discard, signal, beforeFreeze, afterFreeze, noCheckpoint } = this.#options
    const given = { quiesce, scratch, onCbwError, cbwTimeout, minClusterSize, recipe, discard }
    const disks = decisions.map(({ disk, since }) => {
      const begins = !noCheckpoint && disk.incremental.possible
      return { name: disk.name, since, checkpoint: begins ? point : undefined }
    })
    return { ...given, disks, run: this.#id, point, signal, beforeFreeze, afterFreeze }
  }

  /** Copies, publishes and records. Whatever fails, `clean` of the folder removes what has a name. */
  async #store(
    frozen: PointInTime,
    decisions: readonly Decision[],
    point: string,
  ): Promise<BackupMachineResult> {
    const [folder, options] = [this.#folder, this.#options]
    const tasks = decisions.map((decision) => taskOf(decision, frozen))
    const sizes = tasks.map(({ frozen: { name, virtualSize: size } }) => ({ name, size }))
    const progress = new TotalProgress(sizes, options.onProgress)
    const scratch = new ScratchWatch(frozen.disks)
    const sessions: CopySession[] = []
    let definition: Target | undefined
    try {
      // The point in time is there: who waits for that is told.
      progress.tell()
      throwIfAborted(options.signal, this.#machine.title)
      await copyDisks(tasks, sessions, { folder, point }, frozen, options, progress)
      definition = await this.#stageDefinition(frozen, point)
      const others = definition ? [definition] : []
      const files = [...sessions.map(({ target }) => target), ...others]
      await folder.announce({ id: this.#id, point }, files)
      const results = await publishSessions(sessions, others)
      const record = await this.#recordOf(frozen, tasks, results, point)
      const figures = await scratch.finish()
      progress.tell()
      // Nothing fails after this.
      await folder.record(record)
      const { machine, time, parent } = record
      return {
        machine,
        point,
        time,
        ...(parent !== undefined && { parent }),
        record: `${folder.directory}/${recordName(point)}`,
        disks: results.map((result, i) => this.#diskOf(result, record.disks[i], figures)),
        elapsedSeconds: 0,
        notes: [],
      }
    } finally {
      scratch.stop()
      for (const session of sessions) await session.discard()
      await definition?.discard()
    }
  }

  async #stageDefinition({ definition }: PointInTime, point: string): Promise<Target | undefined> {
    if (definition === undefined) return undefined
    return await stageText(`${this.#folder.directory}/${definitionName(point)}`, definition)
  }

  async #recordOf(
    frozen: PointInTime,
    tasks: readonly DiskTask[],
    results: readonly CopyResult[],
    point: string,
  ): Promise<PointRecord> {
    const parents = tasks.flatMap(({ parent }) => parent?.point ?? [])
    const latest = parents.sort((a, b) => Date.parse(b.time) - Date.parse(a.time)).at(0)
    const disks: DiskRecord[] = []
    for (const [i, task] of tasks.entries()) disks.push(await diskRecord(task, results[i], point))
    return {
      version: 1,
      machine: this.#folder.machine,
      point,
      id: this.#id,
      ...(latest && { parent: latest.point, parentId: latest.id }),
      time: frozen.time.toISOString(),
      disks,
      versions: { 'qcow2-backup': ownVersion(), ...frozen.versions },
    }
  }

  #diskOf(
    { notes = [], ...result }: CopyResult,
    { name, image, kind, reason, parent, bitmap }: DiskRecord,
    figures: Awaited<ReturnType<ScratchWatch['finish']>>,
  ): DiskBackup {
    this.#notes.push(...notes.map((note) => `disk ${name}: ${note}`))
    const scratch = figures.get(name)
    return {
      name,
      kind,
      ...(reason !== undefined && { reason }),
      image,
      ...(parent !== undefined && { parent }),
      ...(bitmap && { bitmap }),
      ...result,
      ...(scratch && { scratch }),
    }
  }
}

function taskOf(decision: Decision, { disks }: PointInTime): DiskTask {
  const { name } = decision.disk
  const frozen = disks.find((disk) => disk.name === name)
  if (!frozen) throw new Error(`the point in time lacks disk ${name}`)
  return { ...decision, frozen }
}

async function diskRecord(
  { frozen, kind, reason, parent }: DiskTask,
  result: CopyResult,
  point: string,
): Promise<DiskRecord> {
  const { virtualSize, dataBytes, zeroBytes, unchangedBytes, fileSize, allocatedBytes } = result
  const { name, checkpoint } = frozen
  return {
    name,
    image: imageName(name, point),
    kind,
    ...(reason !== undefined && { reason }),
    virtualSize,
    ...(parent && { parent: parent.point.point, parentId: parent.point.id }),
    ...(checkpoint && { bitmap: checkpoint }),
    dataBytes,
    zeroBytes,
    unchangedBytes,
    fileSize,
    allocatedBytes,
    modified: await modifiedOf(result.target),
    content: result.content!,
  }
}
