/** Whenever a run is killed: nothing, what stood there before, or a complete image. */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { CLI, type CliResult, runCli } from '../support/cli.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { qemuImg, qemuImgCheck, qemuImgSame, run } from '../support/qemu.ts'

const MIB = 2 ** 20
const OLD = 'what stood there before'
/** Of each kind of copy, there being four. */
const KILLS = 7
const SIGNALS = 4

/** What is killed. */
interface Copy {
  args: string[]
  /** The target's. */
  format: 'qcow2' | 'raw'
  /** Something stands under the name, and is to be replaced. */
  force: boolean
}

const COPIES: Copy[] = [false, true].flatMap((force) => {
  const flags = force ? ['--force'] : []
  return [
    { args: ['full', 'disk.raw', 'target', ...flags], format: 'qcow2', force },
    { args: ['restore', 'backup.qcow2', 'target', ...flags], format: 'raw', force },
  ]
})

/** A directory with a disk whose data has gaps, and a backup of it. */
function setUp(test: Test): string {
  const directory = test.testdir()
  const parts = [0, 40, 80].map((at, seed) => ({ at: at * MIB, bytes: noise(8 * MIB, seed) }))
  const disk = makeRaw(join(directory, 'disk.raw'), 100 * MIB, parts)
  qemuImg('convert', '-f', 'raw', '-O', 'qcow2', disk, join(directory, 'backup.qcow2'))
  return directory
}

/** Makes the directory as it was before a copy. */
function prepare(directory: string, copy: Copy): void {
  for (const name of readdirSync(directory)) {
    if (name.includes('target')) rmSync(join(directory, name))
  }
  if (copy.force) writeFileSync(join(directory, 'target'), OLD)
}

/** Looks what a copy left behind: whether it is complete, having made sure that it is no half. */
function isComplete(test: Test, directory: string, copy: Copy, when: string): boolean {
  const target = join(directory, 'target')
  const others = readdirSync(directory).filter(
    (name) => !['disk.raw', 'backup.qcow2', 'target'].includes(name),
  )
  // An unnamed file cannot replace another one: for a moment it has a name of its own.
  const allowed = copy.force ? /^\.target\.[0-9a-f]{12}\.partial$/ : /^$/
  const unexpected = others.filter((name) => !allowed.test(name))
  test.strictSame(unexpected, [], `${when}: no other files`)
  if (!existsSync(target)) {
    test.notOk(copy.force, `${when}: what stood there is gone`)
    return false
  }
  if (copy.force && readFileSync(target, 'latin1') === OLD) return false
  if (copy.format === 'qcow2') test.equal(qemuImgCheck(target).status, 0, `${when}: sound`)
  const disk = { path: join(directory, 'disk.raw'), format: 'raw' }
  test.ok(qemuImgSame({ path: target, format: copy.format }, disk), `${when}: the whole content`)
  return true
}

const title = ({ args }: Copy) => args.join(' ')

/** So slow that a copy takes about as long as the program takes to start. */
const SLOW = ['--rate-limit', '128M']

/** Runs a copy that gets a signal after some milliseconds, or none. */
function start(
  cwd: string,
  copy: Copy,
  signal?: NodeJS.Signals,
  delay?: number,
): Promise<CliResult> {
  let timer: NodeJS.Timeout | undefined
  return runCli([...copy.args, ...SLOW], {
    cwd,
    onStart(child) {
      if (signal) timer = setTimeout(() => child.kill(signal), delay)
    },
  }).finally(() => clearTimeout(timer))
}

/** Milliseconds that a copy takes on this machine, with what else it does now. */
async function duration(test: Test, directory: string, copy: Copy): Promise<number> {
  prepare(directory, copy)
  const started = performance.now()
  const { status, stderr } = await start(directory, copy)
  test.equal(status, 0, stderr)
  const elapsed = performance.now() - started
  test.ok(isComplete(test, directory, copy, 'unharmed'))
  return elapsed
}

/** Moments spread over a run and a bit more: one at random in each of `count` equal parts. */
function moments(count: number, milliseconds: number): number[] {
  return Array.from({ length: count }, (_, i) => ((i + Math.random()) / count) * milliseconds * 1.1)
}

for (const copy of COPIES) {
  t.test(`kill -9 at any moment: ${title(copy)}`, async (t) => {
    const directory = setUp(t)
    let complete = 0
    for (const delay of moments(KILLS, await duration(t, directory, copy))) {
      prepare(directory, copy)
      const result = await start(directory, copy, 'SIGKILL', delay)
      const when = `after ${delay.toFixed(1)} ms`
      t.ok(result.status === 0 || result.signal === 'SIGKILL', when)
      if (isComplete(t, directory, copy, when)) complete++
      else t.not(result.status, 0, `${when}: complete when it says so`)
    }
    t.comment(`${complete} of ${KILLS} were complete`)
  })

  t.test(`SIGINT and SIGTERM at any moment: ${title(copy)}`, async (t) => {
    const directory = setUp(t)
    for (const [i, delay] of moments(SIGNALS, await duration(t, directory, copy)).entries()) {
      const [signal, status] =
        i % 2 === 0 ? (['SIGINT', 130] as const) : (['SIGTERM', 143] as const)
      prepare(directory, copy)
      const result = await start(directory, copy, signal, delay)
      const when = `${signal} after ${delay.toFixed(1)} ms`
      const partial = readdirSync(directory).filter((name) => name.endsWith('.partial'))
      t.strictSame(partial, [], `${when}: cleaned up`)
      const complete = isComplete(t, directory, copy, when)
      if (result.status === status) {
        t.equal(result.stderr, 'qcow2-backup: target: interrupted\n', when)
        t.notOk(complete, `${when}: interrupted before the end`)
      } else if (result.status === 0) {
        t.ok(complete, `${when}: too late to stop it`)
      } else {
        // Before the program listens to signals, and after that, the system ends it.
        t.equal(result.signal, signal, `${when}: ${result.status} ${result.stderr}`)
      }
    }
  })

  t.test(`kill -9 at each step of publishing: ${title(copy)}`, async (t) => {
    const directory = setUp(t)
    // In the order in which they come. The kill comes before the call is made.
    const steps = [
      { call: 'fdatasync' },
      { call: 'fsync' },
      { call: 'linkat' },
      ...(copy.force ? [{ call: 'rename' }] : []),
      // The name is there then, whether or not it would survive a power cut.
      { call: 'fsync', of: directory, complete: true },
    ]
    for (const { call, of, complete = false } of steps) {
      prepare(directory, copy)
      const { status, stderr } = run('strace', [
        ...['-f', '-qq', '-o', '/dev/null'],
        ...['-e', `trace=${call}`, '-e', `inject=${call}:signal=KILL`],
        ...(of ? ['-P', of] : []),
        // io_uring makes no system calls that could be stopped at.
        ...['env', '-C', directory, 'QCOW2_BACKUP_ENGINE=threads'],
        ...[process.execPath, CLI, ...copy.args],
      ])
      const when = `before ${call}${of ? ' of the directory' : ''}`
      t.not(status, 0, `${when}: ${stderr}`)
      t.equal(isComplete(t, directory, copy, when), complete, when)
    }
  })
}
