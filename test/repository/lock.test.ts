/** Locks of a machine's folder: one writer, many readers, in processes and on hosts that may be gone. */
import { spawnSync } from 'node:child_process'
import { readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { mock } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { BackupError } from '../../lib/errors.ts'
import { native } from '../../lib/native.ts'
import type { Progress } from '../../lib/progress.ts'
import { Repository } from '../../lib/repository/repository.ts'

t.setTimeout(900_000)

const BOOT = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
const startOf = (pid: number) =>
  readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ')[19]

async function setUp(test: Test): Promise<{ repository: Repository; lock: string }> {
  const repository = await Repository.make(join(test.testdir(), 'repo'))
  await (await repository.lock('web')).close()
  return { repository, lock: repository.machine('web').lockPath }
}

t.test('one run at a time has a machine, in whatever process', async (t) => {
  const repository = await Repository.make(t.testdir())
  const first = await repository.lock('web')
  await t.rejects(repository.lock('web'), { code: 'IN_USE', message: /process \d+ on / })
  const other = await repository.lock('db')
  const module = new URL('../../lib/repository/repository.js', import.meta.url)
  const program = `
    const { Repository } = await import('${module}')
    const repository = await Repository.make('${repository.directory}')
    await repository.lock('web').then(() => console.log('locked'), ({ code }) => console.log(code))`
  const run = () =>
    spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' }).stdout
  t.equal(run(), 'IN_USE\n')
  await first.close()
  t.equal(run(), 'locked\n')
  t.equal(run(), 'locked\n', 'a process that ended has no lock')
  await other.close()
})

t.test('the file says who has the lock, and is empty after a clean end', async (t) => {
  const { repository, lock } = await setUp(t)
  t.equal(readFileSync(lock, 'utf8'), '')
  const held = await repository.lock('web')
  t.match(JSON.parse(readFileSync(lock, 'utf8')), {
    host: hostname(),
    boot: BOOT,
    pid: process.pid,
    started: startOf(process.pid),
    since: /^20\d\d-/,
  })
  await held.close()
  t.equal(readFileSync(lock, 'utf8'), '')
})

t.test('what a holder leaves behind is taken over, unless it may be alive', async (t) => {
  const { repository, lock } = await setUp(t)
  const here = { host: hostname(), boot: BOOT, pid: process.ppid, started: startOf(process.ppid) }
  const away = { ...here, host: 'elsewhere', boot: 'another' }
  const cases: [what: string, text: string, minutes: number, isHeld: boolean][] = [
    ['another host, a moment ago', JSON.stringify(away), 0, true],
    ['another host, nine minutes ago', JSON.stringify(away), 9, true],
    ['another host, by a clock that was ahead', JSON.stringify(away), -60, true],
    ['another host, eleven minutes ago', JSON.stringify(away), 11, false],
    ['this host, alive: it has lost its lock', JSON.stringify(here), 60, true],
    ['this host, before it was restarted', JSON.stringify({ ...here, boot: 'x' }), 0, false],
    ['this host, another process now', JSON.stringify({ ...here, started: '1' }), 0, false],
    ['a container of this host', JSON.stringify({ ...here, host: 'c', pid: 2 ** 30 }), 0, false],
    ['this host, no process now', JSON.stringify({ ...here, pid: 2 ** 30 }), 0, false],
    ['this process', JSON.stringify({ ...here, pid: process.pid }), 0, false],
    ['half a text', '{"host":"elsew', 0, true],
    ['half a text, long ago', '{"host":"elsew', 11, false],
    ['null', 'null', 11, false],
    ['a clean end', '', 0, false],
  ]
  for (const [what, text, minutes, isHeld] of cases) {
    writeFileSync(lock, text)
    const time = Date.now() / 1000 - minutes * 60
    utimesSync(lock, time, time)
    const outcome = await repository.lock('web').catch((error: BackupError) => error)
    if (outcome instanceof BackupError) {
      t.ok(isHeld && outcome.code === 'IN_USE', `${what}: ${outcome.message}`)
      t.equal(readFileSync(lock, 'utf8'), text, 'and stays as it was')
    } else {
      t.notOk(isHeld, `${what}: taken over`)
      t.equal(JSON.parse(readFileSync(lock, 'utf8')).pid, process.pid)
      await outcome.close()
    }
  }
  t.strictSame(await repository.machine('web').files(), ['.lock'])
})

t.test('a holder gives a sign of life every minute', async (t) => {
  mock.timers.enable({ apis: ['setInterval'] })
  t.teardown(() => mock.timers.reset())
  const { repository, lock } = await setUp(t)
  const held = await repository.lock('web')
  utimesSync(lock, 0, 0)
  mock.timers.tick(59_000)
  mock.timers.tick(2000)
  while (statSync(lock).mtimeMs === 0) await sleep(5)
  t.equal(JSON.parse(readFileSync(lock, 'utf8')).pid, process.pid)
  await held.close()
})

t.test(
  'a holder that was taken for dead publishes nothing, and leaves the other alone',
  async (t) => {
    const { repository, lock } = await setUp(t)
    const act = [() => rmSync(lock), () => writeFileSync(lock, '{"pid":17,"host":"elsewhere"}')]
    for (const lose of act) {
      const held = await repository.lock('web')
      lose()
      const lost = { code: 'IN_USE', message: /the lock was lost/ }
      await t.rejects(held.announce({ id: 'x', point: 'p' }, []), lost)
      await t.rejects(held.clean(), lost)
      await t.rejects(
        held.exclusive(async () => {}),
        lost,
      )
      await held.close()
    }
    t.equal(readFileSync(lock, 'utf8'), '{"pid":17,"host":"elsewhere"}')
  },
)

t.test('readers keep images as they are, and wait for nothing else', async (t) => {
  const { repository } = await setUp(t)
  const held = await repository.lock('web')
  const machine = repository.machine('web')
  const readers = [await machine.readLock(), await machine.readLock()]
  const events: string[] = []
  const waiting = () => {
    let tell: () => void
    const told = new Promise<void>((resolve) => {
      tell = resolve
    })
    const onProgress = ({ phase }: Progress) => {
      if (events.at(-1) !== phase) events.push(phase)
      tell()
    }
    return { told, onProgress }
  }
  const writer = waiting()
  let finish = () => {}
  const isBusy = new Promise<void>((resolve) => {
    finish = resolve
  })
  const swapped = held.exclusive(async () => {
    events.push('swap')
    await isBusy
    events.push('swapped')
  }, writer)
  await writer.told
  events.push('released')
  for (const reader of readers) await reader.release()
  while (events.at(-1) !== 'swap') await sleep(5)
  const third = waiting()
  const reading = machine.readLock(third).then((lock) => {
    events.push('read')
    return lock
  })
  await third.told
  finish()
  await swapped
  const lock = await reading
  t.strictSame(events, ['wait', 'released', 'swap', 'wait', 'swapped', 'read'])
  await lock.release()
  await held.close()
})

t.test('a signal ends a wait', async (t) => {
  const { repository } = await setUp(t)
  const held = await repository.lock('web')
  const reader = await repository.machine('web').readLock()
  const stop = new AbortController()
  const control = { signal: stop.signal, onProgress: () => stop.abort() }
  const swap = held.exclusive(async () => t.fail('it is being read'), control)
  await t.rejects(swap, { code: 'ABORTED' })
  await reader.release()
  t.equal(await held.exclusive(async () => 7), 7, 'what was waited for is free')
  await held.close()
})

t.test('where files have no locks nobody writes, and who reads is not kept from it', async (t) => {
  const { repository } = await setUp(t)
  const addon = native()
  const { lockByte } = addon
  t.teardown(() => {
    addon.lockByte = lockByte
  })
  addon.lockByte = () => {
    throw Object.assign(new Error('lock'), { code: 'ENOLCK' })
  }
  const why = /\.lock: cannot be locked: this file system, as it is mounted, has no locks/
  await t.rejects(repository.lock('web'), { code: 'UNSUPPORTED', errno: 'ENOLCK', message: why })
  const lock = await repository.machine('web').readLock()
  await lock.release()
})

t.test('a folder that is not there gets no lock', async (t) => {
  const { repository } = await setUp(t)
  const db = repository.machine('db')
  await (await db.readLock()).release()
  t.strictSame(await db.files(), [])
})
