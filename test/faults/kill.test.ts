/** Whenever a run is killed: nothing, what stood there before, or a complete image. */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { CLI, type CliResult, runCli } from '../support/cli.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { effort, THOROUGH } from '../support/effort.ts'
import { qemuImg, qemuImgCheck, qemuImgSame, run } from '../support/qemu.ts'

// More than tap's default, for a busy machine.
t.setTimeout(1_800_000)

const MIB = 2 ** 20
/** As far as it is looked at, a qcow2 image: nothing else is replaced by one. */
const OLD = Buffer.from('QFI\xfbwhat stood there before', 'latin1')

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
  if (copy.force && readFileSync(target).equals(OLD)) return false
  if (copy.format === 'qcow2') test.equal(qemuImgCheck(target).status, 0, `${when}: sound`)
  const disk = { path: join(directory, 'disk.raw'), format: 'raw' }
  test.ok(qemuImgSame({ path: target, format: copy.format }, disk), `${when}: the whole content`)
  return true
}

const title = ({ args }: Copy) => args.join(' ')

/** So slow that a copy reports progress about ten times. */
const SLOW = ['--rate-limit', '24M', '--progress', 'json']

/** Runs a copy that gets a signal when it has reported progress so many times; 0: as it starts. */
function interrupt(
  cwd: string,
  copy: Copy,
  signal: NodeJS.Signals,
  reports: number,
): Promise<CliResult> {
  let seen = 0
  return runCli([...copy.args, ...SLOW], {
    cwd,
    onStart(child) {
      if (reports === 0) child.kill(signal)
    },
    onStderr(text, child) {
      const before = seen
      seen += text.split('\n').length - 1
      if (before < reports && seen >= reports) child.kill(signal)
    },
  })
}

/** As the program starts, with its first report, and on until after its last. */
const MOMENTS = effort([0, 2], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])

for (const copy of COPIES) {
  t.test(`kill -9 while copying: ${title(copy)}`, async (t) => {
    const directory = setUp(t)
    for (const reports of MOMENTS) {
      prepare(directory, copy)
      const result = await interrupt(directory, copy, 'SIGKILL', reports)
      const when = `at report ${reports}`
      if (reports <= 1) t.equal(result.signal, 'SIGKILL', `${when}: in the middle of the copy`)
      else t.ok(result.status === 0 || result.signal === 'SIGKILL', when)
      const complete = isComplete(t, directory, copy, when)
      if (!complete) t.not(result.status, 0, `${when}: complete when it says so`)
    }
    prepare(directory, copy)
    const { status, stderr } = await runCli(copy.args, { cwd: directory })
    t.equal(status, 0, stderr)
    t.ok(isComplete(t, directory, copy, 'not interrupted'))
  })

  t.test(`SIGINT and SIGTERM while copying: ${title(copy)}`, async (t) => {
    const directory = setUp(t)
    for (const [i, reports] of MOMENTS.entries()) {
      const [signal, status] =
        i % 2 === 0 ? (['SIGINT', 130] as const) : (['SIGTERM', 143] as const)
      prepare(directory, copy)
      const result = await interrupt(directory, copy, signal, reports)
      const when = `${signal} at report ${reports}`
      const partial = readdirSync(directory).filter((name) => name.endsWith('.partial'))
      t.strictSame(partial, [], `${when}: cleaned up`)
      const complete = isComplete(t, directory, copy, when)
      // Node itself has to start before the program can listen to signals.
      if (reports === 0 && result.signal === signal) continue
      if (result.status === 0) {
        t.ok(complete && reports > 1, `${when}: too late to stop it`)
        continue
      }
      t.equal(result.status, status, `${when}: ${result.stderr}`)
      t.equal(result.stderr.trimEnd().split('\n').at(-1), 'qcow2-backup: target: interrupted')
      t.notOk(complete, `${when}: interrupted before the end`)
    }
  })

  // Replacing has all the steps of making.
  if (!THOROUGH && !copy.force) continue
  t.test(`kill -9 at each step of publishing: ${title(copy)}`, async (t) => {
    const directory = setUp(t)
    // In the order in which they come. The kill comes before the call is made.
    const steps = [
      { call: 'fdatasync' },
      { call: 'fsync' },
      { call: 'linkat' },
      ...(copy.force ? [{ call: 'renameat2' }] : []),
      // The name is there then, whether or not it would survive a power cut.
      { call: 'fsync', of: directory, complete: true },
      // What was replaced is kept until then.
      ...(copy.force ? [{ call: 'unlink', complete: true }] : []),
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
