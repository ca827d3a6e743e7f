import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runCli } from '../support/cli.ts'

const MIB = 2 ** 20

/** A directory with a disk of 64 MiB, all data. */
function setUp(test: Test): string {
  const directory = test.testdir()
  writeFileSync(join(directory, 'disk.raw'), Buffer.alloc(64 * MIB, 'data'))
  return directory
}

/** A copy that would take a minute, which gets signals as soon as it shows progress. */
function interrupted(cwd: string, args: string[], ...signals: NodeJS.Signals[]) {
  let sent = false
  return runCli([...args, '--rate-limit', '1M', '--progress', 'json'], {
    cwd,
    onStderr(_text, child) {
      if (!sent) for (const signal of signals) child.kill(signal)
      sent = true
    },
  })
}

const line = (stderr: string) => stderr.trimEnd().split('\n').at(-1)

for (const [signal, status] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
] as const) {
  t.test(`${signal}: status ${status}, a line, and no target`, async (t) => {
    const cwd = setUp(t)
    const result = await interrupted(cwd, ['full', 'disk.raw', 'b.qcow2'], signal)
    t.equal(result.status, status)
    t.equal(line(result.stderr), 'qcow2-backup: b.qcow2: interrupted')
    t.equal(result.stdout, '')
    t.strictSame(readdirSync(cwd), ['disk.raw'])
  })

  t.test(`${signal}: with --force the old target stays`, async (t) => {
    const cwd = setUp(t)
    writeFileSync(join(cwd, 'old'), 'old')
    const result = await interrupted(
      cwd,
      ['restore', '-f', 'raw', '--force', 'disk.raw', 'old'],
      signal,
    )
    t.equal(result.status, status)
    t.equal(readFileSync(join(cwd, 'old'), 'utf8'), 'old')
    t.strictSame(readdirSync(cwd).sort(), ['disk.raw', 'old'])
  })
}

t.test('a second signal ends at once what will not stop', async (t) => {
  const module = new URL('../../lib/cli/signals.js', import.meta.url)
  const script = `
    const { interruptible } = await import('${module}')
    await interruptible((signal) => {
      setInterval(() => {}, 1000)
      signal.addEventListener('abort', () => console.log('stopping'))
      console.log('working')
      return new Promise(() => {})
    })`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script])
  const output: string[] = []
  child.stdout.setEncoding('utf8').on('data', (text) => {
    output.push(text)
    child.kill(text === 'working\n' ? 'SIGTERM' : 'SIGINT')
  })
  const [status] = await once(child, 'close')
  t.strictSame(output, ['working\n', 'stopping\n'])
  t.equal(status, 143, 'the status is that of the first')
})

t.test('kill -9 leaves nothing', async (t) => {
  const cwd = setUp(t)
  const result = await interrupted(cwd, ['full', 'disk.raw', 'b.qcow2'], 'SIGKILL')
  t.equal(result.signal, 'SIGKILL')
  t.strictSame(readdirSync(cwd), ['disk.raw'])
})
