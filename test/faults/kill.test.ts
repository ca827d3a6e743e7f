import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runCli } from '../support/cli.ts'
import { makeRaw, noise, prose } from '../support/disks.ts'
import { qemuImg, qemuImgCheck, qemuImgSame } from '../support/qemu.ts'

const MIB = 2 ** 20
/** Of each copy. */
const KILLS = 8
const SIGNALS = 4
const OLD = 'what stood there before'

/** Slows a copy of the disk to about a second, so that a signal finds it at work. */
const SLOW = ['--rate-limit', '48M', '--no-progress']

const directory = t.testdir({ targets: {} })
const target = join(directory, 'targets', 'target')
const raw = makeRaw(join(directory, 'disk.raw'), 64 * MIB, [
  { at: 0, bytes: noise(20 * MIB) },
  { at: 40 * MIB, bytes: prose(20 * MIB) },
])
const image = join(directory, 'disk.qcow2')
qemuImg('convert', '-f', 'raw', '-O', 'qcow2', raw, image)

interface Run {
  command: 'full' | 'restore'
  /** Whether something stands under the target's name, to be replaced. */
  force: boolean
  signal: NodeJS.Signals
  /** Milliseconds after the program was started. */
  after: number
}

/** From before the program has read its arguments to after it has ended. */
function randomRuns(count: number, signals: readonly NodeJS.Signals[], seed: number): Run[] {
  const random = noise(count * 2, seed)
  return Array.from({ length: count }, (_, i) => ({
    command: i % 2 === 0 ? 'full' : 'restore',
    force: i % 4 >= 2,
    signal: signals[i % 3 === 0 ? 0 : signals.length - 1],
    after: random.readUInt16LE(2 * i) % 1600,
  }))
}

/** What stands under the target's name: `nothing`, `old`, or a `complete` copy, tried out. */
function standing(t: Test, { command }: Run): 'nothing' | 'old' | 'complete' {
  const names = readdirSync(join(directory, 'targets'))
  t.strictSame(
    names.filter((name) => name !== 'target'),
    [],
    'no other file is left',
  )
  if (!names.includes('target')) return 'nothing'
  if (readFileSync(target).equals(Buffer.from(OLD))) return 'old'
  const format = command === 'full' ? 'qcow2' : 'raw'
  if (format === 'qcow2') t.equal(qemuImgCheck(target).status, 0, 'check is clean')
  t.ok(qemuImgSame({ path: target, format }, { path: raw, format: 'raw' }), 'it is complete')
  return 'complete'
}

async function interrupted(t: Test, run: Run): Promise<string> {
  const { command, force, signal, after } = run
  rmSync(target, { force: true })
  if (force) writeFileSync(target, OLD)
  const args = [command, command === 'full' ? raw : image, target, ...SLOW]
  const result = await runCli(force ? [...args, '--force'] : args, {
    onStart: (child) => setTimeout(() => child.kill(signal), after),
  })
  const left = standing(t, run)
  if (result.status === 0) t.equal(left, 'complete', 'done means that it is there')
  else if (left !== 'complete') t.equal(left, force ? 'old' : 'nothing', 'as it was before')
  // Before the program has set up its handlers, a signal ends it as any other.
  if (result.status !== null && result.status !== 0) {
    t.equal(result.status, signal === 'SIGINT' ? 130 : 143)
    t.match(result.stderr, /^qcow2-backup: [^\n]*: interrupted\n$/)
  }
  return left
}

t.test('kill -9 at random moments', async (t) => {
  const outcomes = new Set<string>()
  for (const run of randomRuns(24, ['SIGKILL'], 1)) {
    const name = `${run.command}${run.force ? ' --force' : ''}, after ${run.after} ms`
    await t.test(name, async (t) => outcomes.add(await interrupted(t, run)))
  }
  t.ok(outcomes.has('nothing') && outcomes.has('old'), 'some runs were met at work')
})

t.test('SIGINT and SIGTERM at random moments', async (t) => {
  for (const run of randomRuns(16, ['SIGINT', 'SIGTERM'], 2)) {
    const name = `${run.signal} to ${run.command}${run.force ? ' --force' : ''}, ${run.after} ms`
    await t.test(name, async (t) => void (await interrupted(t, run)))
  }
})
