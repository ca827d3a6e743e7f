import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import t from 'tap'
import { listens } from '../../lib/machine/qmp/server-directory.ts'
import { GuestAgent } from '../../lib/qmp/guest-agent.ts'
import { QmpError } from '../../lib/qmp/qmp-error.ts'
import { startFakeAgent } from '../support/fake-agent.ts'
import { GUEST_AGENT } from '../support/guest.ts'
import { socketDirectory, startServer } from '../support/server.ts'

t.test('an agent answers commands, one after the other', async (t) => {
  const { path } = await startFakeAgent(t)
  const agent = await GuestAgent.connect(path)
  t.teardown(() => agent.close())
  t.equal(await agent.execute('guest-fsfreeze-status'), 'thawed')
  const first = agent.execute('guest-fsfreeze-status')
  await t.rejects(agent.execute('guest-fsfreeze-freeze'), { code: 'IO', why: /busy/ })
  t.equal(await first, 'thawed')
  const refused = await agent.execute('guest-none').catch((error) => error)
  t.ok(refused instanceof QmpError)
  t.match(refused, { qmpClass: 'CommandNotFound', what: 'guest-none' })
})

t.test('what an earlier client left behind is dropped', async (t) => {
  const { path } = await startFakeAgent(
    t,
    () => false,
    (socket) => socket.write('"half":1}\n{"return":5}\n{"error":{"class":"x","desc":"y"}}\n{"ret'),
  )
  const agent = await GuestAgent.connect(path)
  t.teardown(() => agent.close())
  t.equal(await agent.execute('guest-fsfreeze-status'), 'thawed')
})

t.test('the answer to an earlier sync is not taken for ours', async (t) => {
  const { path } = await startFakeAgent(t, ({ execute, socket }) => {
    if (execute === 'guest-sync-delimited') {
      socket.write('\xff{"return":0}\n{"return":"late"}\n', 'latin1')
    }
    return false
  })
  const agent = await GuestAgent.connect(path)
  t.teardown(() => agent.close())
  t.equal(await agent.execute('guest-fsfreeze-status'), 'thawed')
})

t.test('a late answer is nobody else’s', async (t) => {
  const { path } = await startFakeAgent(t, async ({ execute, answer, followed }) => {
    if (execute !== 'guest-slow') return false
    await followed
    answer('late')
    return true
  })
  const agent = await GuestAgent.connect(path)
  t.teardown(() => agent.close())
  await t.rejects(agent.execute('guest-slow', {}, { timeoutMs: 1 }), {
    code: 'IO',
    errno: 'ETIMEDOUT',
    what: 'guest-slow',
    why: `${path}: no answer from the guest agent within 0.001 s`,
  })
  t.equal(await agent.execute('guest-fsfreeze-status'), 'thawed')
  const stop = new AbortController()
  const cancelled = agent.execute('guest-slow', {}, { signal: stop.signal })
  stop.abort(new Error('enough'))
  await t.rejects(cancelled, { code: 'ABORTED', cause: { message: 'enough' } })
  t.equal(await agent.execute('guest-fsfreeze-status'), 'thawed')
})

t.test('an agent that does not run is an error in time', async (t) => {
  const { path } = await startFakeAgent(t, () => true)
  const connecting = GuestAgent.connect(path, { timeoutMs: 50 })
  await t.rejects(connecting, { code: 'IO', errno: 'ETIMEDOUT', what: 'guest-sync-delimited' })
  await t.rejects(GuestAgent.connect('/nowhere/agent'), { code: 'IO', why: /ENOENT|no such file/i })
  const stop = new AbortController()
  const cancelled = GuestAgent.connect(path, { signal: stop.signal })
  stop.abort()
  await t.rejects(cancelled, { code: 'ABORTED' })
  await t.rejects(GuestAgent.connect(path, { signal: stop.signal }), { code: 'ABORTED' })
  await t.rejects(GuestAgent.connect(`/${'x'.repeat(200)}`), { code: 'USAGE', why: /107/ })
})

t.test('a connection that ends interrupts the call', async (t) => {
  const { path } = await startFakeAgent(t, ({ execute, socket }) => {
    if (execute !== 'guest-shutdown') return false
    socket.destroy()
    return true
  })
  const agent = await GuestAgent.connect(path)
  await t.rejects(agent.execute('guest-shutdown'), { code: 'IO', what: 'guest-shutdown' })
  await t.rejects(agent.execute('guest-ping'), { code: 'IO', what: 'guest-sync-delimited' })
})

for (const [name, text] of Object.entries({
  'what is not JSON': 'hello\n',
  'nothing that QMP has': '{}\n',
  'a line without end': 'x'.repeat(2 ** 21),
})) {
  t.test(`an agent that answers with ${name}`, async (t) => {
    const { path } = await startFakeAgent(t, ({ execute, socket }) => {
      if (execute !== 'guest-info') return false
      socket.write(text)
      return true
    })
    const agent = await GuestAgent.connect(path)
    await t.rejects(agent.execute('guest-info'), { code: 'IO', why: /the guest agent sent/ })
    await t.rejects(agent.execute('guest-info'), { code: 'IO' })
  })
}

t.test('an agent that says garbage for ever times out', async (t) => {
  const { path } = await startFakeAgent(t, ({ socket }) => {
    const more = () => {
      while (!socket.destroyed && socket.write('{"return":1}\nnonsense\n'.repeat(1000)));
    }
    socket.on('drain', more)
    more()
    return true
  })
  await t.rejects(GuestAgent.connect(path, { timeoutMs: 200 }), { code: 'IO', errno: 'ETIMEDOUT' })
})

t.test('the real agent answers', async (t) => {
  const directory = socketDirectory(t)
  const path = join(directory, 'agent')
  // Freezing would stop this machine.
  const blocked = 'guest-fsfreeze-freeze,guest-fsfreeze-freeze-list,guest-shutdown'
  const args = ['-m', 'unix-listen', '-p', path, '-t', directory, '-b', blocked]
  await startServer(t, GUEST_AGENT, args, path)
  // The socket's name is there before somebody listens.
  while (!(await listens(path))) await setImmediate()
  const agent = await GuestAgent.connect(path)
  t.match(await agent.execute('guest-info'), { version: /^\d/ })
  t.equal(await agent.execute('guest-fsfreeze-status'), 'thawed')
  for (const name of ['guest-fsfreeze-freeze', 'guest-none']) {
    const refused = await agent.execute(name).catch((error) => error)
    t.match(refused, { what: name, qmpClass: 'CommandNotFound' })
  }
  await agent.sync()
  t.same(await agent.execute('guest-ping'), {})
  agent.close()
  // The answer that it did not wait for comes later. It is read before the client leaves: the agent ends
  // by SIGPIPE if it writes to nobody, which it cannot on the port of a guest.
  const second = await GuestAgent.connect(path)
  const cancelled = second.execute('guest-info', {}, { signal: AbortSignal.timeout(0) })
  await cancelled.catch(() => undefined)
  await second.sync()
  t.same(await second.execute('guest-ping'), {})
  second.close()
  const third = await GuestAgent.connect(path)
  t.teardown(() => third.close())
  t.same(await third.execute('guest-ping'), {})
})
