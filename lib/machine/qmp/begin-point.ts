import { argumentError, BackupError, messageOf, throwIfAborted } from '../../errors.ts'
import { log } from '../../log.ts'
import type { QmpClient } from '../../qmp/client.ts'
import { whileFrozen } from '../../qmp/frozen-guest.ts'
import { quoted } from '../../text.ts'
import { type FreezeOptions, type FrozenDisk, RUN_ID } from '../machine.ts'
import { holdRun, isRunAlive } from '../run-lock.ts'
import { findGuestAgent } from './agent.ts'
import { GRANULARITY, MARK } from './checkpoints.ts'
import { readDisks } from './disks.ts'
import { type ExportUri, openExportServer } from './export-server.ts'
import type { Features } from './features.ts'
import { exportDisks, makeInstant, openTemporaries } from './freeze.ts'
import { nameOf } from './names.ts'
import { type FreezePlan, planFreeze } from './plan-freeze.ts'
import { QmpPoint } from './point.ts'
import { canBeRead } from './probe.ts'
import { removeFiles, removeRun, statusOf } from './remove-run.ts'
import { createScratch, type Scratch } from './scratch.ts'
import { Survey } from './survey.ts'
import { Watch } from './watch.ts'

/** The machine that is frozen. */
export interface FrozenMachine {
  title: string
  features: Features
  /** See MachineOptions. */
  nbdServer?: string
  guestAgent?: string
  monitor(): Promise<QmpClient>
}

/**
 * Freezes disks at one instant.
 * @throws BackupError; everything that was made is removed then
 */
export async function beginPoint(
  machine: FrozenMachine,
  options: FreezeOptions,
): Promise<QmpPoint> {
  const { run } = options
  if (!RUN_ID.test(run)) throw argumentError('run', 'is not 12 hexadecimal digits')
  const lock = await holdRun(run)
  try {
    return await new Beginning(machine, options).run(lock)
  } catch (error) {
    lock.release()
    throw error
  }
}

/** What has been made so far. */
class Beginning {
  readonly #machine: FrozenMachine
  readonly #options: FreezeOptions
  readonly #run: string
  readonly #scratches: Scratch[] = []
  #watch: Watch | undefined
  #stoodBefore = false

  constructor(machine: FrozenMachine, options: FreezeOptions) {
    this.#machine = machine
    this.#options = options
    this.#run = options.run
  }

  async run(lock: { release(): void }): Promise<QmpPoint> {
    const { title, features, nbdServer, monitor } = this.#machine
    const { scratch: directory, signal } = this.#options
    const client = await monitor()
    await requireFree(client, title, this.#run)
    const disks = await readDisks(client, features)
    const plan = planFreeze(this.#options, disks, features, title)
    this.#stoodBefore = (await statusOf(client)) === 'io-error'
    try {
      for (const { disk, index } of plan.disks) {
        throwIfAborted(signal, title)
        this.#scratches.push(await createScratch(disk, this.#run, index, directory))
      }
      const paths = this.#scratches.map(({ path }) => path)
      await openTemporaries(client, plan, paths, this.#run, signal)
      const uri = await openExportServer(client, this.#run, disks, title, nbdServer)
      const time = await this.#instant(client, plan)
      throwIfAborted(signal, title)
      await exportDisks(client, plan, this.#run)
      return this.#point(client, plan, time, uri, lock)
    } catch (error) {
      await this.#undo(monitor)
      throw error
    }
  }

  /** Hooks come in pairs: who was told of the freeze is told of its end, also of one that failed. */
  async #instant(client: QmpClient, plan: FreezePlan): Promise<Date> {
    const { title, features } = this.#machine
    const { beforeFreeze, afterFreeze, signal } = this.#options
    const agent = await this.#agent(client)
    await beforeFreeze?.()
    try {
      throwIfAborted(signal, title)
      const nodes = plan.disks.flatMap(({ disk: { root, chain } }) => [root, ...chain])
      this.#watch = new Watch(client, this.#run, title, nodes)
      const make = () => makeInstant(client, plan, this.#options, features, this.#run)
      if (agent === undefined) return await make()
      // Whoever cleans up after us sees by it that the guest is to be thawed.
      const mark = { node: plan.disks[0].disk.node, name: nameOf(this.#run, 'quiesced') }
      await client.execute('block-dirty-bitmap-add', { ...mark, granularity: MARK, disabled: true })
      const { value } = await whileFrozen(agent, make, { signal })
      await client.execute('block-dirty-bitmap-remove', mark)
      return value
    } finally {
      await afterFreeze?.()
    }
  }

  /** Found before anybody is told of a freeze. */
  async #agent(client: QmpClient): Promise<string | undefined> {
    if (!this.#options.quiesce) return undefined
    const { title, guestAgent } = this.#machine
    return guestAgent ?? (await findGuestAgent(client, title))
  }

  #point(
    client: QmpClient,
    plan: FreezePlan,
    time: Date,
    uri: ExportUri,
    lock: { release(): void },
  ): QmpPoint {
    const { title, features, monitor } = this.#machine
    const watch = this.#watch as Watch
    const scratches = this.#scratches
    const { needsSingleClusters } = features
    const requestSize = needsSingleClusters ? { requestSize: plan.discardGranule } : {}
    const disks = plan.disks.map(({ name, disk, since, checkpoint, index }): FrozenDisk => {
      const bitmap = since === undefined ? undefined : nameOf(this.#run, 'frozen')
      return {
        name,
        virtualSize: disk.virtualSize,
        source: uri(nameOf(this.#run, 'exp', index)),
        open: { format: 'raw', ...requestSize, ...(bitmap !== undefined && { bitmap }) },
        ...(this.#options.discard !== false && { discardGranule: plan.discardGranule }),
        ...(checkpoint !== undefined && { checkpoint: begun(checkpoint) }),
        heldRanges: () => scratches[index].held(),
        scratchBytes: () => scratches[index].bytes(),
      }
    })
    const check = async () => {
      for (const disk of disks) {
        if (watch.signal.aborted || (await canBeRead(disk))) continue
        const why =
          'QEMU could not keep what the guest overwrote, and gave the point in time of disk ' +
          `${quoted(disk.name)} up; the guest was not disturbed`
        watch.lose(new BackupError('IO', title, why))
      }
    }
    watch.start(scratches)
    return new QmpPoint({
      time,
      disks,
      versions: { qemu: versionOf(client) },
      notes: plan.notes,
      run: this.#run,
      plan: plan.disks,
      scratches,
      watch,
      lock,
      removing: this.#removing(),
      monitor,
      check,
    })
  }

  #removing() {
    return { stoodBefore: this.#stoodBefore, files: this.#scratches.map(({ path }) => path) }
  }

  async #undo(monitor: () => Promise<QmpClient>): Promise<void> {
    this.#watch?.stop()
    const removing = this.#removing()
    const notes = await monitor().then(
      (client) => removeRun(client, this.#run, removing),
      async (error) => [messageOf(error), ...(await removeFiles(this.#run, removing.files))],
    )
    for (const note of notes) log('qmp', () => `${this.#machine.title}: ${note}`)
    await Promise.allSettled(this.#scratches.map((scratch) => scratch.close()))
  }
}

/** @throws BackupError IN_USE if another run is at it, or one with this id has left something */
async function requireFree(client: QmpClient, title: string, own: string): Promise<void> {
  for (const { run } of (await Survey.take(client)).runs) {
    if (run === own) throw new BackupError('IN_USE', title, `has parts of a run ${run} already`)
    if (!(await isRunAlive(run))) continue
    throw new BackupError('IN_USE', title, `another backup of it is running (run ${run})`)
  }
}

function begun(name: string): FrozenDisk['checkpoint'] {
  return { name, granularity: GRANULARITY }
}

function versionOf({ version }: QmpClient): string {
  const { major = 0, minor = 0, micro = 0 } = version?.qemu ?? {}
  const packaged = version?.package ? ` (${version.package})` : ''
  return `${major}.${minor}.${micro}${packaged}`
}
