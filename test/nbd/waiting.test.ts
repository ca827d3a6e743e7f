/** Nobody waits for a server for longer than they want to. */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { fullBackup } from '../../lib/backup/full.ts'
import { openSource } from '../../lib/source/open-source.ts'
import { CHUNK, startNbdServer, statusChunk } from '../support/nbd-server.ts'

const SIZE = 8 * 2 ** 20

/** Whether an answer about block status is held back. */
const silent = ({ type }: { type: string }) => type === 'status'

t.test('servers that are silent stop no file calls of the process', async (t) => {
  // More than there are threads in libuv's pool.
  const stop = new AbortController()
  const { signal } = stop
  const servers = await Promise.all(
    Array.from({ length: 6 }, () => startNbdServer(t, { accept: () => false })),
  )
  const connecting = servers.map(({ uri }) => openSource(uri, { signal }))
  const asking = await startNbdServer(t, { multiConn: true, answer: silent })
  const sources = await Promise.all(
    Array.from({ length: 6 }, () => openSource(asking.uri, { signal })),
  )
  const mappings = sources.map((source) => source.mappings().next())
  const waiting: Promise<unknown>[] = [...connecting, ...mappings]
  for (const one of waiting) one.catch(() => undefined)
  for (let i = 1; i <= 6; i++) {
    await asking.asked(({ type, connection }) => type === 'status' && connection === i)
  }
  t.ok((await readFile(process.execPath)).length > 0)
  stop.abort()
  for (const one of waiting) await t.rejects(one, { code: 'ABORTED' })
})

t.test('an abort is obeyed while a server is connected to', async (t) => {
  const stop = new AbortController()
  const server = await startNbdServer(t, {
    accept() {
      setImmediate(() => stop.abort(new Error('enough')))
      return false
    },
  })
  const opening = openSource(server.uri, { signal: stop.signal })
  await t.rejects(opening, { code: 'ABORTED', cause: { message: 'enough' } })
})

t.test('an abort is obeyed while extents are asked for, by a copy too', async (t) => {
  for (const multiConn of [true, false]) {
    const stop = new AbortController()
    const server = await startNbdServer(t, {
      multiConn,
      answer(request) {
        if (request.type !== 'status') return false
        stop.abort()
        return true
      },
    })
    const target = join(t.testdir(), 'out.qcow2')
    await t.rejects(fullBackup(server.uri, target, { signal: stop.signal }), { code: 'ABORTED' })
  }
})

t.test('a copy that fails does not wait for the extents of the rest', async (t) => {
  const server = await startNbdServer(t, {
    size: 2 ** 33,
    multiConn: true,
    answer({ type, offset }, send) {
      if (type === 'read') send(CHUNK.none, Buffer.alloc(0))
      else if (type === 'status' && offset === 0) send(CHUNK.status, statusChunk(1, 2 ** 31, 0))
      else if (type !== 'status') return false
      return true
    },
  })
  const target = join(t.testdir(), 'out.qcow2')
  await t.rejects(fullBackup(server.uri, target), { code: 'IO', errno: 'EPROTO' })
})

t.test('a server that takes fewer connections: the copy goes on with those', async (t) => {
  const server = await startNbdServer(t, {
    size: SIZE,
    multiConn: true,
    accept: (connection, socket) => {
      if (connection <= 2) return true
      socket.destroy()
      return false
    },
  })
  const result = await fullBackup(server.uri, join(t.testdir(), 'out.qcow2'), { connections: 4 })
  t.match(result, { virtualSize: SIZE, zeroBytes: SIZE })
})

t.test('a server that leaves further connections unanswered holds up nobody', async (t) => {
  const server = await startNbdServer(t, {
    size: SIZE,
    multiConn: true,
    // The last look at the size is not of the copy.
    accept: (connection) => connection <= 2 || connection > 5,
  })
  const result = await fullBackup(server.uri, join(t.testdir(), 'out.qcow2'), { connections: 4 })
  t.match(result, { virtualSize: SIZE, zeroBytes: SIZE })
})

t.test('what comes back after a reconnect must be the same export', async (t) => {
  const server = await startNbdServer(t, {
    multiConn: true,
    description: 'first',
    answer(request, _send, socket) {
      if (request.type !== 'read') return false
      server.options = { ...server.options, description: 'second' }
      socket.destroy()
      return true
    },
  })
  const target = join(t.testdir(), 'out.qcow2')
  const failing = fullBackup(server.uri, target, { connections: 1 })
  await t.rejects(failing, { code: 'IO', why: /another description/ })
})

t.test('a server that falls silent on each connection after a few answers', async (t) => {
  for (const multiConn of [true, false]) {
    const answered = new Map<number, number>()
    const server = await startNbdServer(t, {
      size: 256 * 2 ** 20,
      multiConn,
      answer({ type, connection }) {
        if (type !== 'read') return false
        const count = (answered.get(connection) ?? 0) + 1
        answered.set(connection, count)
        return count > 3
      },
    })
    const directory = t.testdir({ targets: {} })
    const target = join(directory, 'targets', 'out.qcow2')
    const failing = fullBackup(server.uri, target, { timeoutMs: 500 })
    await t.rejects(failing, { code: 'IO', errno: 'ETIMEDOUT' })
    t.strictSame(await readdir(join(directory, 'targets')), [])
    // To the end it would take 256 reads, three on each connection.
    t.ok(server.connections < 40)
  }
})

t.test('a server that is restarted again and again, with progress between', async (t) => {
  let reads = 0
  const server = await startNbdServer(t, {
    size: 64 * 2 ** 20,
    multiConn: true,
    answer({ type }, _send, socket) {
      if (type !== 'read' || ++reads % 4 !== 0) return false
      socket.destroy()
      return true
    },
  })
  const target = join(t.testdir(), 'out.qcow2')
  const result = await fullBackup(server.uri, target, { connections: 1, requests: 1 })
  t.match(result, { virtualSize: 64 * 2 ** 20 })
  t.ok(server.connections > 8)
})

t.test('every second connection is never greeted', async (t) => {
  const server = await startNbdServer(t, {
    size: SIZE,
    multiConn: true,
    accept: (connection) => connection % 2 === 1,
    answer({ type, connection }) {
      return type === 'read' && connection > 1
    },
  })
  const target = join(t.testdir(), 'out.qcow2')
  const failing = fullBackup(server.uri, target, { timeoutMs: 500 })
  await t.rejects(failing, { code: 'IO', errno: 'ETIMEDOUT' })
})

t.test('an export that is too large for offsets to be exact', async (t) => {
  for (const size of [2n ** 53n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n]) {
    const server = await startNbdServer(t, { size })
    const why = 'the export is larger than 8 PiB'
    await t.rejects(openSource(server.uri), { code: 'UNSUPPORTED', what: server.uri, why })
  }
  const server = await startNbdServer(t, { size: 2n ** 53n - 1024n, multiConn: true })
  const source = await openSource(server.uri)
  t.equal(source.size, 2 ** 53 - 1024)
  await source.close()
})
