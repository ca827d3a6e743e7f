/**
 * Backups that are killed at random moments, and QEMUs that are: the next run makes a point that is as the
 * disks were, finds what was left and removes it, and nothing else.
 */
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { backupMachine, inspectMachine } from '../../lib/index.ts'
import type { QmpClient } from '../../lib/qmp/client.ts'
import type { QmpObject } from '../../lib/qmp/protocol.ts'
import { type CliResult, runCli } from '../support/cli.ts'
import { DaemonMachine } from '../support/daemon-machine.ts'
import { effort, THOROUGH } from '../support/effort.ts'
import { hashOfExport, hashOfImage } from '../support/frozen-point.ts'
import { LoadedMachine } from '../support/loaded-machine.ts'
import { seeded } from '../support/random.ts'
import { socketDirectory } from '../support/server.ts'

// More than tap's default, for a busy machine.
t.setTimeout(1_800_000)

const SEED = Number(process.env.SEED ?? Date.now() % 2 ** 31)

/** What runs the disks. */
interface Victim {
  readonly directory: string
  readonly disks: readonly { name: string; path: string }[]
  readonly monitor: string
  readonly qmp: QmpClient
  /** Of an NBD server that runs already. */
  readonly nbdServer?: string
  start(): Promise<void>
  restart(): Promise<void>
  kill(): Promise<void>
  more(): Promise<void>
}

/** Who is killed, and what happens then. */
const WAYS = ['client', 'client, then a restart', 'QEMU', 'client, then QEMU'] as const
type Way = (typeof WAYS)[number]

interface Node {
  'node-name': string
  'dirty-bitmaps'?: {
    name?: string
    recording: boolean
    persistent: boolean
    inconsistent?: boolean
  }[]
}

/** The foreign bitmaps of disk a. Two of them have names that are nearly ours. */
const FOREIGN = [
  { name: 'nightly', persistent: true },
  { name: 'qcow2-backup-nightly', persistent: true },
  { name: 'standing', persistent: true, disabled: true },
  { name: 'qcow2-backup-0123456789ab', persistent: false, disabled: true },
]

/** Begins what is not ours: bitmaps, nodes and a job. */
async function addForeign({ qmp }: Victim, isFirst: boolean): Promise<void> {
  const bitmaps = FOREIGN.filter(({ persistent }) => isFirst || !persistent)
  for (const bitmap of bitmaps) {
    await qmp.execute('block-dirty-bitmap-add', { node: 'a', granularity: 65536, ...bitmap })
  }
  if (isFirst) {
    // So that it holds something.
    const merged = { node: 'a', target: 'standing', bitmaps: ['nightly'] }
    await qmp.execute('block-dirty-bitmap-merge', merged)
  }
  for (const node of ['qcow2-backup-null', 'null']) {
    await qmp.execute('blockdev-add', { driver: 'null-co', 'node-name': node, size: 65536 })
  }
  const ready = qmp.events({ names: ['BLOCK_JOB_READY'] })
  const mirror = { 'job-id': 'qcow2-backup-mirror', device: 'qcow2-backup-null', target: 'null' }
  await qmp.execute('blockdev-mirror', { ...mirror, sync: 'full' })
  await ready.next()
  ready.close()
}

/** What is there, but for what changes by itself: our bitmaps, and everything else. */
async function inventory({ qmp }: Victim) {
  const nodes = (await qmp.execute('query-named-block-nodes', { flat: true })) as Node[]
  const jobs = (await qmp.execute('query-jobs')) as { id: string; status: string }[]
  const exports = (await qmp.execute('query-block-exports')) as { id: string }[]
  const devices = (await qmp.execute('query-block')) as { inserted?: { 'node-name': string } }[]
  const bitmaps: Record<string, unknown>[] = []
  for (const { 'node-name': node, 'dirty-bitmaps': all = [] } of nodes) {
    for (const { name, recording, persistent, inconsistent = false } of all) {
      const bitmap = { node, name, recording, persistent, inconsistent }
      // What records, grows.
      const stands = name !== undefined && !recording && !inconsistent
      bitmaps.push({
        ...bitmap,
        hash: stands ? await hashOfBitmap(qmp, { node, name }) : undefined,
      })
    }
  }
  bitmaps.sort((a, b) => `${a.node} ${a.name}`.localeCompare(`${b.node} ${b.name}`))
  // Those without a name are a job's.
  const isForeign = ({ name }: { name?: unknown }) =>
    name === undefined || FOREIGN.some((one) => one.name === name)
  return {
    ours: bitmaps.filter((bitmap) => !isForeign(bitmap)),
    others: {
      nodes: nodes.map((node) => node['node-name']).sort(),
      jobs: jobs.map(({ id, status }) => `${id} ${status}`).sort(),
      exports: exports.map(({ id }) => id).sort(),
      devices: devices.map(({ inserted }) => inserted?.['node-name']),
      bitmaps: bitmaps.filter(isForeign),
    },
  }
}

type Others = Awaited<ReturnType<typeof inventory>>['others']

async function hashOfBitmap(qmp: QmpClient, bitmap: QmpObject): Promise<unknown> {
  return await qmp.execute('x-debug-block-dirty-bitmap-sha256', bitmap)
}

/** Files of the repository that no record names. */
function unrecorded(repository: string): string[] {
  const directory = join(repository, 'guest')
  const files = new Set(existsSync(directory) ? readdirSync(directory) : [])
  for (const file of [...files].filter((name) => /^[^.].*\.json$/.test(name))) {
    const { disks } = JSON.parse(readFileSync(join(directory, file), 'utf8'))
    for (const name of [file, ...disks.map(({ image }: { image: string }) => image)]) {
      if (!files.delete(name)) return [`${name} is missing`]
    }
  }
  return [...files].filter((name) => name !== '.lock')
}

/** Temporary files of ours. */
function temporary(victim: Victim, temporaries: string): string[] {
  return [victim.directory, temporaries].flatMap((directory) =>
    readdirSync(directory).filter((name) => name.startsWith('qcow2-backup-')),
  )
}

/** One victim, and backups of it. */
class Trial {
  readonly #t: Test
  readonly #victim: Victim
  readonly #repository: string
  /** Where the client's temporary files go. */
  readonly #temporaries: string
  readonly #random: () => number
  /** Of a run that nobody disturbs, milliseconds. */
  #duration = 0

  constructor(t: Test, victim: Victim, seed: number) {
    this.#t = t
    this.#victim = victim
    this.#repository = join(victim.directory, 'repository')
    this.#temporaries = socketDirectory(t)
    this.#random = seeded(seed)
    const before = process.env.TMPDIR
    process.env.TMPDIR = this.#temporaries
    t.teardown(() => {
      if (before === undefined) delete process.env.TMPDIR
      else process.env.TMPDIR = before
    })
  }

  async begin(): Promise<void> {
    await this.#victim.start()
    await addForeign(this.#victim, true)
    const begun = performance.now()
    const { status, stderr } = await this.#backUp(() => {})
    this.#t.equal(status, 0, stderr.slice(-2000))
    this.#duration = performance.now() - begun
  }

  async kill(way: Way): Promise<void> {
    const t = this.#t
    const victim = this.#victim
    let { others } = await inventory(victim)
    const moment = (0.25 + 0.8 * this.#random()) * this.#duration
    const { status, signal, stderr } = await this.#killAt(moment, way)
    const ending = signal ?? `status ${status}`
    t.comment(`${way}, after ${moment.toFixed(0)} ms of ${this.#duration.toFixed(0)}: ${ending}`)
    const last = stderr.trimEnd().split('\n').at(-1) ?? ''
    if (way === 'QEMU' && status !== 0) {
      t.equal(status, 1, last)
      t.match(last, /^qcow2-backup: /, stderr.slice(-2000))
      t.strictSame(unrecorded(this.#repository), [], 'the client leaves nothing in the repository')
      t.strictSame(temporary(victim, this.#temporaries), [], 'nor beside the disks')
    }
    if (way === 'client, then a restart') await victim.restart()
    if (way === 'client, then QEMU') await victim.kill()
    if (way.endsWith('QEMU')) await victim.start()
    if (way !== 'client') {
      await addForeign(victim, false)
      others = (await inventory(victim)).others
    }
    await this.#recover(way, others)
  }

  async #killAt(moment: number, way: Way): Promise<CliResult> {
    const isDue = new AbortController()
    const timer = setTimeout(() => isDue.abort(), moment)
    if (way !== 'QEMU') {
      const result = await this.#backUp((child) => {
        isDue.signal.addEventListener('abort', () => child.kill('SIGKILL'))
      })
      clearTimeout(timer)
      return result
    }
    const killed = once(isDue.signal, 'abort').then(() => this.#victim.kill())
    const [result] = await Promise.all([this.#backUp(() => {}), killed])
    return result
  }

  /** The next run. */
  async #recover(way: Way, before: Others): Promise<void> {
    const t = this.#t
    const victim = this.#victim
    const hashes = new Map<string, string>()
    const result = await backupMachine(`qmp:${victim.monitor}`, this.#repository, {
      name: 'guest',
      nbdServer: victim.nbdServer,
      onDisk: async ({ name, source }) => {
        const scratch = join(victim.directory, `${name}.reference`)
        hashes.set(name, await hashOfExport(source, scratch))
      },
    })
    for (const note of result.notes) t.comment(note.slice(0, 200))
    for (const { name, kind, reason, image } of result.disks) {
      const path = join(this.#repository, 'guest', image)
      const hash = await hashOfImage(path, 'qcow2', `${path}.raw`)
      t.equal(hash, hashes.get(name), `${name} is as it was at the instant`)
      // A client that is killed costs no full backup.
      if (name !== 'c' && !way.endsWith('QEMU')) t.equal(kind, 'incremental', `${name}: ${reason}`)
    }
    await this.#requireNothingLeft(before, result.point)
    await victim.more()
  }

  async #requireNothingLeft(before: Others, point: string): Promise<void> {
    const t = this.#t
    const victim = this.#victim
    const { ours, others } = await inventory(victim)
    const bitmap = { name: point, recording: true, persistent: true, inconsistent: false }
    const wanted = ['a', 'b'].map((node) => ({ node, ...bitmap, hash: undefined }))
    t.strictSame(ours, wanted, 'our bitmaps are those of the last point')
    t.strictSame(others, before, 'the things of others are as they were')
    const { leftovers } = await inspectMachine(`qmp:${victim.monitor}`)
    t.strictSame(leftovers, [])
    t.strictSame(unrecorded(this.#repository), [], 'nothing is left in the repository')
    t.strictSame(temporary(victim, this.#temporaries), [], 'nothing is left beside the disks')
  }

  async #backUp(onStart: (child: ChildProcess) => void) {
    const { monitor, nbdServer } = this.#victim
    const server = nbdServer === undefined ? [] : ['--nbd-server', nbdServer]
    const where = ['--repo', this.#repository, '--name', 'guest', ...server]
    const how = ['--rate-limit', '32M', '--progress', 'json']
    const env = { TMPDIR: this.#temporaries }
    return await runCli(['backup', `qmp:${monitor}`, ...where, ...how], { env, onStart })
  }
}

/** How often each way is met. */
type Counts = Record<Way, number>

async function killAgainAndAgain(t: Test, victim: Victim, counts: Counts): Promise<void> {
  t.comment(`SEED=${SEED}`)
  const trial = new Trial(t, victim, SEED)
  await trial.begin()
  for (const way of WAYS) {
    for (let i = 0; i < counts[way]; i++) await trial.kill(way)
  }
}

t.test('a storage daemon: killed at random moments', async (t) => {
  const counts: Counts = {
    client: effort(0, 5),
    'client, then a restart': effort(0, 3),
    QEMU: effort(0, 5),
    'client, then QEMU': effort(1, 3),
  }
  await killAgainAndAgain(t, new DaemonMachine(t), counts)
})

if (THOROUGH) {
  t.test('a machine with a guest: killed at random moments', async (t) => {
    const counts: Counts = {
      client: 5,
      'client, then a restart': 2,
      QEMU: 2,
      'client, then QEMU': 2,
    }
    await killAgainAndAgain(t, new LoadedMachine(t), counts)
  })
}
