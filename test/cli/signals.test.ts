import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { CLI, runCli } from '../support/cli.ts'
import { run } from '../support/qemu.ts'

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
  ['SIGHUP', 129],
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

/** A program of its own that handles signals as ours does; its lines are told to `onLine`. */
async function handling(body: string, onLine: (line: string, child: ChildProcess) => void) {
  const url = (name: string) =>
    JSON.stringify(new URL(`../../lib/${name}.js`, import.meta.url).href)
  const script = `
    const { handleSignals, interruptible, setEnd } = await import(${url('cli/signals')})
    const { endProcess } = await import(${url('cli/end')})
    handleSignals()
    setEnd(endProcess)
    ${body}`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script])
  const lines: string[] = []
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    for (const line of text.split('\n').filter(Boolean)) {
      lines.push(line)
      onLine(line, child)
    }
  })
  child.stderr.pipe(process.stderr)
  const [status, signal] = await once(child, 'close')
  return { lines, status, signal }
}

t.test('a second signal ends at once what will not stop', async (t) => {
  const body = `
    await interruptible((signal) => {
      setInterval(() => {}, 1000)
      signal.addEventListener('abort', () => console.log('stopping'))
      console.log('working')
      return new Promise(() => {})
    })`
  const { lines, status } = await handling(body, (line, child) => {
    child.kill(line === 'working' ? 'SIGTERM' : 'SIGINT')
  })
  t.strictSame(lines, ['working', 'stopping'])
  t.equal(status, 143, 'the status is that of the first')
})

t.test('also while a thread of the pool hangs, and temporary names go', async (t) => {
  const dir = t.testdir()
  const fifo = join(dir, 'fifo')
  t.equal(run('mkfifo', [fifo]).status, 0)
  const body = `
    import fs from 'node:fs'
    const name = ${JSON.stringify(join(dir, 'temporary'))}
    fs.writeFileSync(name, '')
    process.on('exit', () => fs.unlinkSync(name))
    await interruptible((signal) => {
      signal.addEventListener('abort', () => console.log('stopping'))
      console.log('working')
      return fs.promises.open(${JSON.stringify(fifo)})
    })`
  const { lines, status } = await handling(body, (line, child) => {
    child.kill(line === 'working' ? 'SIGINT' : 'SIGTERM')
  })
  t.strictSame(lines, ['working', 'stopping'])
  t.equal(status, 130)
  t.strictSame(readdirSync(dir), ['fifo'])
})

t.test('a signal before any work ends at once, one after it changes nothing', async (t) => {
  const idle = await handling(
    "setInterval(() => {}, 1000); console.log('idle')",
    (_line, child) => void child.kill('SIGTERM'),
  )
  t.match(idle, { status: 143, signal: null })
  const done = await handling(
    `await interruptible(async () => {})
    process.stdin.once('data', () => { console.log('the end'); process.exit(0) })
    process.on('SIGTERM', () => console.log('seen'))
    console.log('done')`,
    (line, child) => {
      if (line === 'done') child.kill('SIGTERM')
      if (line === 'seen') child.stdin?.write('x')
    },
  )
  t.match(done, { lines: ['done', 'seen', 'the end'], status: 0 })
})

t.test('a reader that does not read does not hold up a signal', async (t) => {
  const cwd = t.testdir()
  // Data and holes in turn: a list longer than all that lies between the two processes can hold.
  const disk = openSync(join(cwd, 'disk'), 'w')
  for (let at = 0; at < 64 * MIB; at += 8192) writeSync(disk, 'x', at)
  closeSync(disk)
  const child = spawn(process.execPath, [CLI, 'extents', 'disk'], { cwd })
  child.stdout.once('readable', () => child.kill('SIGTERM'))
  child.stderr.resume()
  const [status] = await once(child, 'exit')
  t.equal(status, 143)
})

t.test('kill -9 leaves nothing under the name', async (t) => {
  const cwd = setUp(t)
  const result = await interrupted(cwd, ['full', 'disk.raw', 'b.qcow2'], 'SIGKILL')
  t.equal(result.signal, 'SIGKILL')
  t.strictSame(readdirSync(cwd), ['disk.raw'])
})
