import { createServer } from 'node:net'
import t, { type Test } from 'tap'
import { QmpClient } from '../../lib/qmp/client.ts'
import { MAX_QUEUED, MAX_QUEUED_LENGTH } from '../../lib/qmp/events.ts'
import { LineReader } from '../../lib/qmp/protocol.ts'
import { QmpError } from '../../lib/qmp/qmp-error.ts'
import { type Answer, GREETING, startMonitor } from '../support/qmp-server.ts'
import { startStorageDaemon } from '../support/storage-daemon.ts'

const silent: Answer = () => {}

async function connectTo(t: Test, answer: Answer) {
  const monitor = await startMonitor(t, answer)
  const client = await QmpClient.connect(monitor.path)
  t.teardown(() => client.close())
  return { monitor, client }
}

t.test('a client reads the greeting and negotiates', async (t) => {
  const monitor = await startMonitor(t, silent)
  const client = await QmpClient.connect(monitor.path, { capabilities: ['oob', 'other'] })
  t.teardown(() => client.close())
  t.strictSame(client.version, GREETING.QMP.version)
  t.strictSame(client.capabilities, ['oob'])
  t.match(monitor.commands, [{ execute: 'qmp_capabilities', arguments: { enable: ['oob'] } }])
})

t.test('answers in another order than asked reach their callers', async (t) => {
  const asked: unknown[] = []
  const { client } = await connectTo(t, ({ id }, send) => {
    asked.push(id)
    if (asked.length < 3) return
    for (const one of asked.reverse()) send({ return: { id: one }, id: one })
  })
  const answers = await Promise.all(['a', 'b', 'c'].map((name) => client.execute(name)))
  t.strictSame(new Set(answers.map((answer) => (answer as { id: number }).id)).size, 3)
  t.strictSame(
    answers.map((answer) => (answer as { id: number }).id),
    (asked as number[]).reverse(),
  )
})

t.test('a command that is refused names itself', async (t) => {
  const { client } = await connectTo(t, ({ id }, send) => {
    send({ error: { class: 'DeviceNotFound', desc: "no node 'x'" }, id })
  })
  const failed = client.execute('blockdev-del', { 'node-name': 'x' })
  const error: unknown = await failed.catch((reason) => reason)
  t.ok(error instanceof QmpError)
  const message = "blockdev-del: no node 'x'"
  t.match(error, { code: 'IO', qmpClass: 'DeviceNotFound', command: 'blockdev-del', message })
})

t.test('commands out of band overtake others', async (t) => {
  const { client, monitor } = await connectTo(t, ({ id }, send) => send({ return: 1, id }))
  t.equal(await client.execute('migrate-pause', undefined, { outOfBand: true }), 1)
  t.match(monitor.commands[1], { 'exec-oob': 'migrate-pause', execute: undefined })
})

t.test('events: each queue takes what it wants, in order', async (t) => {
  const { client, monitor } = await connectTo(t, ({ id }, send) => {
    send({ event: 'STOP', timestamp: { seconds: 5, microseconds: 250000 } })
    send({ event: 'JOB', data: { id: 'a' } })
    send({ event: 'JOB', data: { id: 'b' } })
    send({ return: {}, id })
  })
  const all = client.events()
  const ofB = client.events({ names: ['JOB'], fits: ({ id }) => id === 'b' })
  const none = client.events({ names: ['RESUME'] })
  await client.execute('stop')
  t.strictSame(
    all.drain().map(({ event }) => event),
    ['STOP', 'JOB', 'JOB'],
  )
  t.match(await ofB.next(), { event: 'JOB', data: { id: 'b' } })
  t.strictSame(none.drain(), [])
  const coming = none.next({ timeoutMs: 60_000 })
  monitor.send({ event: 'RESUME', timestamp: { seconds: 1, microseconds: 500000 } })
  t.match(await coming, { event: 'RESUME', data: {}, time: 1500 })
  const late = none.next({ timeoutMs: 1 })
  await t.rejects(late, { code: 'IO', errno: 'ETIMEDOUT', why: 'no RESUME within 0.001 s' })
  none.close()
  await t.rejects(none.next(), { code: 'IO' })
  const stop = new AbortController()
  const aborted = ofB.next({ signal: stop.signal })
  stop.abort(new Error('enough'))
  await t.rejects(aborted, { code: 'ABORTED', cause: { message: 'enough' } })
})

t.test('a queue that nobody empties fails, and the connection goes on', async (t) => {
  const { client } = await connectTo(t, ({ id }, send) => {
    for (let i = 0; i <= MAX_QUEUED; i++) send({ event: 'FLOOD', data: { i } })
    send({ return: {}, id })
  })
  const events = client.events()
  await client.execute('go')
  await t.rejects(events.next(), { code: 'IO', why: /more than 4096 events/ })
  await client.execute('go')
})

t.test('a queue is bounded by what its events hold, too', async (t) => {
  const big = 'x'.repeat(MAX_QUEUED_LENGTH / 4)
  const { client } = await connectTo(t, ({ id }, send) => {
    for (let i = 0; i < 4; i++) send({ event: 'FLOOD', data: { big } })
    send({ return: {}, id })
  })
  const events = client.events()
  await client.execute('go')
  await t.rejects(events.next(), { code: 'IO', why: /more than 3 events/ })
})

t.test('a monitor that does not read is given no more commands', async (t) => {
  const { client } = await connectTo(t, (_, _send, socket) => void socket.pause())
  client.execute('first').catch(() => undefined)
  const args = { text: 'x'.repeat(2 ** 20) }
  let refused: unknown
  for (let i = 0; i < 100 && !refused; i++) {
    const call = client.execute('blockdev-add', args, { timeoutMs: 1 })
    refused = await call.catch(({ errno, why }) => (errno === 'ETIMEDOUT' ? undefined : why))
  }
  t.equal(refused, 'the monitor does not read its commands')
})

t.test('a connection that ends interrupts every call, naming the command', async (t) => {
  const { client, monitor } = await connectTo(t, silent)
  const events = client.events()
  const calls = [client.execute('first'), client.execute('second')]
  const event = events.next()
  for (const one of [...calls, event]) one.catch(() => undefined)
  monitor.drop()
  await t.rejects(calls[0], { code: 'IO', what: 'first', why: /closed the connection|ECONNRESET/ })
  await t.rejects(calls[1], { code: 'IO', what: 'second' })
  await t.rejects(event, { code: 'IO', what: monitor.path })
  await t.rejects(client.execute('third'), { code: 'IO', what: 'third' })
  await t.rejects(client.events().next(), { code: 'IO' })
  await client.closed()
})

t.test('a connection that is reset has closed, which is no failure to wait for', async (t) => {
  // What it has not read when it closes resets the connection.
  const { client } = await connectTo(t, (_, _send, socket) => void socket.pause().destroy())
  const closed = client.closed()
  const calls = [1, 2].map(() => client.execute('quit', { text: 'x'.repeat(2 ** 20) }))
  for (const call of calls) await t.rejects(call, { code: 'IO' })
  await closed
})

t.test(
  'a command without an answer is given up, and its late answer is nobody else’s',
  async (t) => {
    const ids: unknown[] = []
    const { client } = await connectTo(t, ({ id, execute }, send) => {
      ids.push(id)
      if (execute === 'slow') return
      for (const one of ids) send({ return: one, id: one })
    })
    await t.rejects(client.execute('slow', {}, { timeoutMs: 1 }), {
      code: 'IO',
      errno: 'ETIMEDOUT',
      what: 'slow',
    })
    t.equal(await client.execute('fast'), ids[1])
    const stop = new AbortController()
    const aborted = client.execute('slow', {}, { signal: stop.signal })
    stop.abort()
    await t.rejects(aborted, { code: 'ABORTED', what: 'slow' })
  },
)

t.test('an answer to the client before reaches nobody', async (t) => {
  const { client } = await connectTo(t, ({ id }, send) => {
    for (let other = 0; other < 100; other++) send({ return: 'of another', id: other })
    send({ return: 'own', id })
  })
  t.equal(await client.execute('query-block'), 'own')
  t.equal(await client.execute('query-block'), 'own')
})

t.test('a signal ends the connection and all that waits for it', async (t) => {
  const monitor = await startMonitor(t, silent)
  const stop = new AbortController()
  const client = await QmpClient.connect(monitor.path, { signal: stop.signal })
  const call = client.execute('quit')
  call.catch(() => undefined)
  stop.abort(new Error('enough'))
  await t.rejects(call, { code: 'ABORTED', what: 'quit', cause: { message: 'enough' } })
  await client.closed()
  await t.rejects(QmpClient.connect(monitor.path, { signal: stop.signal }), { code: 'ABORTED' })
})

t.test('a monitor that is not there, and a wrong address, are errors', async (t) => {
  await t.rejects(QmpClient.connect('/nowhere/qmp'), { code: 'IO', errno: 'ENOENT' })
  await t.rejects(QmpClient.connect('localhost:1'), { code: 'IO', errno: 'ECONNREFUSED' })
  await t.rejects(QmpClient.connect('localhost:99999'), { code: 'USAGE' })
  await t.rejects(QmpClient.connect(''), { code: 'USAGE' })
  // Node would connect to another socket, whose path these begin with.
  const { path } = await startMonitor(t, silent)
  await t.rejects(QmpClient.connect(`${path}\0more`), { code: 'USAGE' })
  await t.rejects(QmpClient.connect(path.padEnd(200, 'x')), { code: 'USAGE', why: /107/ })
})

const BROKEN: Record<string, unknown> = {
  'what is not JSON': 'HTTP/1.1 400 Bad Request\r\n\r\n',
  'an array': '[]\n',
  'nothing that QMP has': '{"hello":1}\n',
  'a number': '1\n',
  'deep nesting': `${'['.repeat(1e6)}\n`,
  'an answer to no number': '{"return":{},"id":"7"}\n',
  'an answer without an id': '{"return":{}}\n',
  'an error of its own': '{"error":{"class":"GenericError","desc":"JSON parse error"}}\n',
}

for (const [name, text] of Object.entries(BROKEN)) {
  t.test(`a peer that greets with ${name}`, async (t) => {
    const monitor = await startMonitor(t, silent, (socket) => socket.write(String(text)))
    await t.rejects(QmpClient.connect(monitor.path), { code: 'IO', why: /is not a QMP monitor/ })
  })

  t.test(`a peer that answers with ${name}`, async (t) => {
    const { client } = await connectTo(t, (_, _send, socket) => void socket.write(String(text)))
    const failure = { code: 'IO', what: 'query-block', why: /is not a QMP monitor/ }
    await t.rejects(client.execute('query-block'), failure)
    await client.closed()
  })
}

t.test('lines are read from pieces however small', (t) => {
  const reader = new LineReader(12)
  const text = Buffer.from('{"a":1}\r\n\n{"ä":"12"}\n{"half')
  const lines: string[] = []
  for (let i = 0; i < text.length; i++) lines.push(...reader.push(text.subarray(i, i + 1)))
  t.strictSame(lines, ['{"a":1}', '{"ä":"12"}'])
  t.throws(() => reader.push(text), { message: 'sent a line of more than 12 bytes' })
  reader.reset()
  t.strictSame(reader.push(text), lines)
  t.end()
})

t.test('a line without end ends the connection', async (t) => {
  const monitor = await startMonitor(t, silent, (socket) => {
    const more = () => {
      while (!socket.destroyed && socket.write(Buffer.alloc(2 ** 20, 'x')));
    }
    socket.on('drain', more)
    more()
  })
  await t.rejects(QmpClient.connect(monitor.path), { code: 'IO', why: /a line of more than/ })
})

t.test('a peer that says nothing times out', async (t) => {
  const monitor = await startMonitor(t, silent, () => {})
  const connecting = QmpClient.connect(monitor.path, { timeoutMs: 50 })
  await t.rejects(connecting, { code: 'IO', errno: 'ETIMEDOUT', why: /no greeting within/ })
  const stop = new AbortController()
  const aborted = QmpClient.connect(monitor.path, { signal: stop.signal })
  setImmediate(() => stop.abort())
  await t.rejects(aborted, { code: 'ABORTED' })
})

t.test('a monitor is reached by TCP', async (t) => {
  const server = createServer((socket) => {
    socket.write(`${JSON.stringify(GREETING)}\n`)
    socket.once('data', (command) => {
      const { id } = JSON.parse(String(command))
      socket.write(`${JSON.stringify({ return: {}, id })}\n`)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const { port } = server.address() as { port: number }
  const client = await QmpClient.connect(`127.0.0.1:${port}`)
  t.equal(client.version?.qemu.major, 9)
  client.close()
})

t.test('a real monitor answers', async (t) => {
  const daemon = await startStorageDaemon(t)
  t.ok(daemon.client.version)
  const nodes = await daemon.client.execute('query-named-block-nodes')
  t.strictSame(nodes, [])
  const refused = await daemon.client.execute('no-such-command').catch((reason) => reason)
  t.match(refused, { qmpClass: 'CommandNotFound', what: 'no-such-command' })
})
