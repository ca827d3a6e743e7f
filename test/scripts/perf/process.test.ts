import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import t from 'tap'
import { measure } from '../../../scripts/perf/measure.ts'
import { run, succeed } from '../../../scripts/perf/process.ts'

const never = new AbortController().signal

t.test('a command that ends gives its output', async (t) => {
  t.match(await run(['sh', '-c', 'echo out; echo err >&2; exit 3'], never), {
    status: 3,
    stdout: 'out\n',
    stderr: 'err\n',
  })
  const { wall } = await succeed(['sleep', '0.2'], never)
  t.ok(wall >= 0.2 && wall < 2, `took ${wall}`)
})

t.test('a command that reads gets its input', async (t) => {
  const input = [Buffer.from('one '), Buffer.from('two')]
  t.equal((await run(['cat'], never, input)).stdout, 'one two')
  t.equal((await run(['cat'], never)).stdout, '', 'nothing, if nothing is given')
  const many = Array.from({ length: 64 }, () => Buffer.alloc(2 ** 16))
  t.equal((await run(['true'], never, many)).status, 0, 'what is not read is no error')
})

t.test('a command that fails is an error with its words', async (t) => {
  await t.rejects(succeed(['sh', '-c', 'echo one >&2; echo two >&2; exit 1'], never), {
    code: 'IO',
    why: 'ended with 1: two',
  })
  await t.rejects(run(['no-such-program'], never), {
    message: 'no-such-program: no such file or directory',
  })
})

t.test('an abort reaches the children of the command', async (t) => {
  const dir = t.testdir()
  const note = join(dir, 'note')
  const controller = new AbortController()
  const ready = join(dir, 'ready')
  // One long sleep would go on if the signal met it between fork and exec.
  const loop = 'while :; do sleep 0.1; done'
  const script = `trap 'echo cleaned > ${note}; exit 1' INT; touch ${ready}; ${loop}`
  const timed = ['time', '-q', '-o', join(dir, 'usage'), 'sh', '-c', script]
  const running = run(timed, controller.signal)
  while (!existsSync(ready)) await pause(10)
  controller.abort()
  await t.rejects(running, { name: 'AbortError' })
  t.equal(await readFile(note, 'utf8'), 'cleaned\n')
  await t.rejects(run(['true'], controller.signal), { name: 'AbortError' })
})

t.test('what a run cost is measured', async (t) => {
  const dir = t.testdir()
  const target = join(dir, 'target')
  const dd = ['dd', 'if=/dev/zero', `of=${target}`, 'bs=1M', 'count=8']
  const found = await measure(dd, join(dir, 'usage'), target, never)
  t.match(found, { fileSize: 8 * 2 ** 20, allocated: Number, written: Number })
  t.ok(found.wall > 0 && found.cpu >= 0)
  t.ok(found.peak > 2 ** 20 && found.peak < 64 * 2 ** 20, 'peak is in bytes, and dd is small')
  const none = await measure(['true'], join(dir, 'usage'), join(dir, 'none'), never)
  t.match(none, { fileSize: 0, allocated: 0 }, 'a command that makes no file')
  await t.rejects(measure(['false'], join(dir, 'usage'), target, never), {
    message: 'false: ended with 1: no message',
  })
})
