import { copyFile, mkdir, readdir, rm } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { BackupError } from '../../../lib/errors.ts'
import { formatSize } from '../../../lib/units.ts'
import { GRANULARITY } from '../changed-disks.ts'
import { mixedContent } from '../content.ts'
import { granuleCommand, WRITE_IN_ORDER } from '../granules.ts'
import { scatteredLayout } from '../layout.ts'
import { allocatedRatio, wallRatio } from '../limits.ts'
import { measure, type Timed } from '../measure.ts'
import { succeed } from '../process.ts'
import { seeded, shuffle } from '../random.ts'
import type { Run } from '../results.ts'
import { type LiveDaemon, NODE, pushInWords, startLiveDaemon } from '../servers/live-daemon.ts'
import { requireSame } from '../verify.ts'
import { watchPeak } from '../watch-peak.ts'
import { latency, latencyAlone, startWrites } from '../writes.ts'
import type { PerfCase, Plan, Setup } from './case.ts'

/** Our own backup, but for its discards. */
const WITHOUT_DISCARDS = resolve(import.meta.dirname, '../without-discards.js')

/** Of the machine in the repository. */
const MACHINE = 'live'
/** The point before, whose bitmap has recorded the changes. */
const BEFORE = 'before'
const POINT = 'point'

export const liveFull: PerfCase = {
  name: 'live-full',
  title: 'Full backup of a running machine, from the freeze to the tear-down',
  async prepare(setup) {
    const live = await Live.begin(setup)
    return { ...live.plan(), limits: [wallRatio(1)] }
  },
}

export const liveIncremental: PerfCase = {
  name: 'live-incremental',
  title: 'Incremental backup of a running machine, a tenth changed',
  async prepare(setup) {
    const live = await Live.begin(setup)
    await live.change()
    return { ...live.plan(), limits: [wallRatio(0.85)] }
  },
}

/** Here a wall is a latency in seconds, and the limit that of a guest that is not backed up. */
export const liveLatency: PerfCase = {
  name: 'live-latency-p99',
  title: "Latency of the guest's random writes during a full backup, 99th percentile",
  prepare: (setup) => planLatency(setup, 99),
}

export const liveLatencyMedian: PerfCase = {
  name: 'live-latency-p50',
  title: "Latency of the guest's random writes during a full backup, median",
  prepare: (setup) => planLatency(setup, 50),
}

/** Here what is allocated is the temporary image's peak. */
export const liveScratch: PerfCase = {
  name: 'live-scratch',
  title:
    'Peak of the temporary image while the guest writes ahead, against the same without discards',
  async prepare(setup) {
    const live = await Live.begin(setup)
    return { ...(await live.scratchPlan()), limits: [allocatedRatio(0.5)] }
  },
}

async function planLatency(setup: Setup, percentile: number): Promise<Plan> {
  const live = await Live.begin(setup)
  const plan = live.plan(percentile)
  // The guest has gone on: whether the result is right is for tests.
  return { ...plan, verify: async () => {}, limits: [wallRatio(1)] }
}

/** A machine with one disk, and backups of it. */
class Live {
  readonly #setup: Setup
  readonly #daemon: LiveDaemon
  readonly #repository: string
  #before = false

  static async begin(setup: Setup): Promise<Live> {
    const { size, written } = setup.data.disks.live
    const made = await setup.data.made('live.qcow2', { size, written }, async (path) => {
      const content = mixedContent()
      await succeed(['qemu-img', 'create', '-q', '-f', 'qcow2', path, `${size}`], setup.signal)
      const daemon = await startLiveDaemon(path, setup)
      const granules = Array.from({ length: written / MIB }, (_, i) => ({
        offset: i * MIB,
        length: MIB,
      }))
      await write(daemon.uri, granules, content, setup)
      await daemon.stop()
    })
    const disk = join(setup.scratch, 'live.qcow2')
    await copyFile(made, disk)
    return new Live(setup, await startLiveDaemon(disk, setup))
  }

  private constructor(setup: Setup, daemon: LiveDaemon) {
    this.#setup = setup
    this.#daemon = daemon
    this.#repository = join(setup.scratch, 'repository')
  }

  /** Takes a backup, and has the guest change a tenth of the disk. */
  async change(): Promise<void> {
    await succeed(this.#command(BEFORE), this.#setup.signal)
    this.#before = true
    const granules = shuffle(scatteredLayout(this.#setup.data.disks.live.changed), seeded(5))
    await write(this.#daemon.uri, granules, mixedContent(), this.#setup)
  }

  /** @param percentile of the latency that is measured in place of the wall */
  plan(percentile?: number): Omit<Plan, 'limits'> {
    const { size, changed } = this.#setup.data.disks.live
    const what = this.#before
      ? `${changed.blocks} scattered dirty granules of ${formatSize(changed.blockSize)}`
      : `${formatSize(this.#setup.data.disks.live.written)} of data`
    const measured = (
      words: string,
      backUp: (onBegin: () => void) => Promise<Run>,
    ): Timed<Run> => ({
      words,
      run: async () => {
        await this.#reset()
        if (percentile === undefined) return await backUp(() => {})
        return await this.#latency(percentile, backUp)
      },
    })
    const command = this.#command(POINT)
    return {
      disk: `${formatSize(size)} in qemu-storage-daemon, ${what}`,
      sources: [],
      format: 'raw',
      ours: () => measured(command.join(' '), (onBegin) => this.#ours(command, onBegin)),
      peer: (target) =>
        measured(pushInWords(this.#before ? BEFORE : undefined), (onBegin) =>
          this.#push(target, onBegin),
        ),
      ...(percentile !== undefined && {
        limit: () => ({
          words: 'the same writes alone',
          run: () => latencyAlone(this.#daemon.uri, percentile, this.#setup),
        }),
      }),
      verify: async () => {
        const disk = { path: this.#daemon.uri, format: 'raw' } as const
        const image = { path: this.#image(POINT), format: 'qcow2' } as const
        await requireSame(disk, image, this.#setup.signal)
      },
    }
  }

  /** What the temporary image takes, with discards and without. */
  async scratchPlan(): Promise<Omit<Plan, 'limits'>> {
    const { slow, size, written } = this.#setup.data.disks.live
    // Each lets QEMU copy a cluster of 64 KiB: half of what we copy meanwhile.
    const rate = slow / GRANULARITY / 2
    const scratch = join(this.#setup.scratch, 'temporary')
    await mkdir(scratch)
    const how = ['--scratch', scratch, '--rate-limit', `${slow}`]
    const ours = [...this.#command(POINT), ...how]
    const [node] = this.#setup.ours
    const peer = [node, WITHOUT_DISCARDS, this.#daemon.monitor, this.#repository]
    peer.push(this.#daemon.uri, scratch, `${slow}`, POINT)
    const measured = (command: string[]): Timed<Run> => ({
      words: command.join(' '),
      run: async () => {
        await this.#reset()
        const writes = await startWrites(this.#daemon.uri, this.#setup, rate)
        const peak = watchPeak(scratch)
        const run = await this.#ours(command, () => {})
        await writes.stop()
        return { ...run, allocated: await peak.stop() }
      },
    })
    return {
      disk: `${formatSize(size)} in qemu-storage-daemon, ${formatSize(written)} of data, copied at ${formatSize(slow)}/s; the guest writes to ${rate} clusters a second`,
      sources: [],
      format: 'raw',
      ours: () => measured(ours),
      peer: () => measured(peer),
      // The guest has gone on.
      verify: async () => {},
    }
  }

  #image(point: string): string {
    return join(this.#repository, MACHINE, `${NODE}.${point}.qcow2`)
  }

  #command(point: string): string[] {
    const { ours } = this.#setup
    const where = ['--repo', this.#repository, '--name', MACHINE]
    const how = [this.#before ? '--incremental' : '--full', '--old', 'keep', '--checkpoint', point]
    const monitor = `qmp:${this.#daemon.monitor}`
    const server = ['--nbd-server', this.#daemon.uri]
    return [...ours, 'backup', monitor, ...where, ...server, ...how, '--json', '--progress', 'json']
  }

  async #ours(command: string[], onBegin: () => void): Promise<Run> {
    const { scratch, signal } = this.#setup
    const usage = join(scratch, 'usage')
    return await this.#daemon.withOwn(() =>
      // Its first words come when the point in time is there.
      measure(command, usage, this.#image(POINT), signal, onBegin),
    )
  }

  async #push(target: string, onBegin: () => void): Promise<Run> {
    const { size } = this.#setup.data.disks.live
    const backing = this.#before ? ['-b', this.#image(BEFORE), '-F', 'qcow2'] : []
    const create = ['qemu-img', 'create', '-q', '-f', 'qcow2', ...backing, target, `${size}`]
    await succeed(create, this.#setup.signal)
    return await this.#daemon.push(target, this.#before ? BEFORE : undefined, onBegin)
  }

  /** The machine and the repository as they were before any run. */
  async #reset(): Promise<void> {
    await this.#daemon.keepBitmap(this.#before ? BEFORE : undefined)
    const directory = join(this.#repository, MACHINE)
    const files = await readdir(directory).catch(() => [])
    for (const file of files) {
      if (file.includes(POINT)) await rm(join(directory, file))
    }
    if (!this.#before) await rm(this.#repository, { recursive: true, force: true })
  }

  async #latency(percentile: number, backUp: (onBegin: () => void) => Promise<Run>): Promise<Run> {
    const writes = await startWrites(this.#daemon.uri, this.#setup)
    let begin: bigint | undefined
    const run = await backUp(() => {
      begin ??= process.hrtime.bigint()
    })
    const end = process.hrtime.bigint()
    const all = await writes.stop()
    if (begin === undefined) throw new BackupError('IO', 'backup', 'did not say that it has begun')
    return { ...run, wall: latency(all, percentile, begin, end) }
  }
}

const MIB = 2 ** 20

async function write(
  uri: string,
  granules: { offset: number; length: number }[],
  content: ReturnType<typeof mixedContent>,
  setup: Setup,
): Promise<void> {
  const command = await granuleCommand(WRITE_IN_ORDER, uri, granules, setup)
  const input = function* () {
    for (const { offset, length } of granules) yield content(offset, length)
  }
  await succeed(command, setup.signal, input())
}
