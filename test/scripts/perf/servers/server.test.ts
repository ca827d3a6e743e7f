import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import t from 'tap'
import { socketPath, socketUri, startServer } from '../../../../scripts/perf/servers/server.ts'
import { testStage } from '../stage.ts'

t.test('a server serves from its pid file on, and ends when told', async (t) => {
  const stage = testStage(t)
  const pidFile = join(stage.scratch, 'pid')
  const loop = 'while :; do sleep 0.05; done'
  const script = `trap 'rm ${pidFile}; exit 0' TERM; sleep 0.1; touch ${pidFile}; ${loop}`
  const server = await startServer(['sh', '-c', script], pidFile, stage)
  t.ok(existsSync(pidFile))
  process.kill(server.pid, 0)
  await server.stop()
  t.notOk(existsSync(pidFile), 'it had its time to clean up')
  t.throws(() => process.kill(server.pid, 0), { code: 'ESRCH' })
  await server.stop()
})

t.test('a server that does not serve is an error', async (t) => {
  const stage = testStage(t)
  const pidFile = join(stage.scratch, 'pid')
  const start = (...argv: string[]) => startServer(argv, pidFile, stage)
  await t.rejects(start('sh', '-c', 'echo one >&2; echo two >&2; exit 1'), {
    code: 'IO',
    why: 'ended: two',
  })
  await t.rejects(start('no-such-server'), { code: 'IO', why: /ENOENT/ })
})

t.test('an abort ends the wait', async (t) => {
  const controller = new AbortController()
  const stage = testStage(t, controller.signal)
  const starting = startServer(['sleep', '60'], join(stage.scratch, 'pid'), stage)
  await pause(20)
  controller.abort()
  await t.rejects(starting, { name: 'AbortError' })
})

t.test('sockets of servers have short paths', async (t) => {
  const stage = testStage(t)
  t.equal(socketUri('/a b/c', 'disk'), 'nbd+unix:///disk?socket=/a%20b/c')
  t.equal(socketPath(stage, 'x'), join(stage.scratch, 'x'))
  t.throws(() => socketPath(stage, 'x'.repeat(107)), { code: 'BAD_TARGET', why: /--dir/ })
})
