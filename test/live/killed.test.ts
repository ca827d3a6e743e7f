/**
 * Runs that are killed before any of their system calls that change something, or that fail there: nothing
 * half is under a name, and the next run has all changes and leaves nothing.
 */
import { readdirSync } from 'node:fs'
import t from 'tap'
import { CLI, runCli } from '../support/cli.ts'
import { effort } from '../support/effort.ts'
import { run } from '../support/qemu.ts'
import { RestingMachine } from '../support/repository.ts'

t.setTimeout(1_800_000)

/** Calls by which names and durability change, and by which bitmaps are written. */
const CALLS = 'fsync,fdatasync,linkat,unlink,rename,mkdir,pwrite64'

/** Runs a backup with a fault of strace's; its end. */
function back(m: RestingMachine, inject: string, options: string[] = []) {
  return run('strace', [
    ...['-f', '-qq', '-o', '/dev/null', '-e', `trace=${CALLS}`, '-e', inject],
    // One thread makes all calls of Node's: they are counted for each thread by itself.
    ...['env', 'UV_THREADPOOL_SIZE=1', 'QCOW2_BACKUP_ENGINE=threads'],
    ...[process.execPath, CLI, ...m.args, ...options],
  ])
}

for (const how of ['signal=KILL', 'error=ENOSPC'] as const) {
  t.test(`${how} at each call of ${CALLS}`, async (t) => {
    const m = new RestingMachine(t)
    m.write(0)
    t.equal((await runCli(m.args)).status, 0)
    const outcomes = new Set<string>()
    const step = effort(23, 1)
    let completed = false
    for (let n = 1; !completed; n += step) {
      const points = m.records()
      m.write(2 * n)
      const contents = m.contents()
      const { status, stderr } = back(m, `inject=${CALLS}:${how}:when=${n}`)
      const when = `${how} at call ${n}: ${stderr.trim()}`
      const after = m.records()
      // A point that has a record is whole, however the run ended.
      const isStored = after.length > points.length
      if (isStored) m.compare(after.at(-1)!.point, contents, when)
      if (status === 0) t.ok(isStored, `${when}: stored`)
      // An error is told of after everything was cleaned up, except where the cleaning was what failed.
      else if (how !== 'signal=KILL' && !stderr.includes('bitmaps are left') && !isStored) {
        const names = after.flatMap(({ disks, point }) => [
          `${point}.json`,
          ...disks.map((d) => d.image),
        ])
        const left = readdirSync(m.folder).filter(
          (name) => !names.includes(name) && name !== '.lock',
        )
        t.strictSame(left, [], `${when}: nothing of the point is left`)
        t.strictSame(m.bitmaps(), [points.at(-1)!.point], `${when}: the bitmaps are as before`)
      }
      outcomes.add(`${isStored ? 'stored' : 'not stored'}, ${status === 0 ? 'done' : 'ended'}`)
      m.write(2 * n + 1)
      const next = m.contents()
      const again = await runCli([...m.args, '--json'])
      t.equal(again.status, 0, `${when}: the next run: ${again.stderr}`)
      const result = JSON.parse(again.stdout)
      t.equal(result.disks[0].kind, 'incremental', `${when}: ${result.disks[0].reason}`)
      t.equal(result.parent, after.at(-1)!.point, `${when}: its parent`)
      m.compare(result.point, next, `after ${when}`)
      m.requireTidy(`after ${when}`)
      completed = how === 'signal=KILL' ? status === 0 : n > 24
    }
    t.ok(outcomes.has('not stored, ended'), [...outcomes].join('; '))
  })
}

t.test('kill -9, SIGINT and SIGTERM with any line of progress', async (t) => {
  const m = new RestingMachine(t)
  m.write(0)
  t.equal((await runCli(m.args)).status, 0)
  const slow = ['--full', '--rate-limit', '128K', '--progress', 'json']
  for (const [i, signal] of (['SIGKILL', 'SIGINT', 'SIGTERM'] as const).entries()) {
    for (const line of effort([1 + i], [1, 2, 5])) {
      const points = m.records()
      m.write(10 * i + line)
      let seen = 0
      const { status, stderr } = await runCli([...m.args, ...slow], {
        onStderr(text, child) {
          const before = seen
          seen += text.split('\n').length - 1
          if (before < line && seen >= line) child.kill(signal)
        },
      })
      const when = `${signal} at line ${line}`
      t.equal(status, { SIGKILL: null, SIGINT: 130, SIGTERM: 143 }[signal], `${when}: ${stderr}`)
      t.strictSame(m.records(), points, `${when}: no point`)
      if (signal !== 'SIGKILL') m.requireTidy(when)
      const contents = m.contents()
      const again = await runCli([...m.args, '--json'])
      t.equal(again.status, 0, again.stderr)
      const result = JSON.parse(again.stdout)
      t.equal(result.disks[0].kind, 'incremental', `${when}: ${result.disks[0].reason}`)
      m.compare(result.point, contents, when)
      m.requireTidy(`after ${when}`)
    }
  }
})

t.test('a second run at the same time is refused, and a killed one has no lock', async (t) => {
  const m = new RestingMachine(t)
  m.write(0)
  let second: ReturnType<typeof runCli> | undefined
  const first = await runCli([...m.args, '--rate-limit', '64K', '--progress', 'json'], {
    onStderr(_text, child) {
      if (second) return
      second = runCli(m.args)
      second.then(() => child.kill('SIGKILL'))
    },
  })
  t.equal(first.signal, 'SIGKILL')
  const { status, stderr } = await second!
  t.equal(status, 1)
  t.match(stderr, /^qcow2-backup: web: another run writes to its folder \(process \d+ on .*\)\n$/)
  t.equal((await runCli(m.args)).status, 0)
  m.requireTidy('after it')
})
