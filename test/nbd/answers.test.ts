/** Answers of a server that are not what was asked: no byte that it did not send may count. */
import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { fullBackup } from '../../lib/backup/full.ts'
import { openSource } from '../../lib/source/open-source.ts'
import { runCli } from '../support/cli.ts'
import { makeRaw } from '../support/disks.ts'
import {
  CHUNK,
  dataChunk,
  errorChunk,
  type NbdRequest,
  type SendChunk,
  startNbdServer,
  statusChunk,
} from '../support/nbd-server.ts'
import { qemuImgSame } from '../support/qemu.ts'

const SIZE = 4 * 2 ** 20
const NOTHING = Buffer.alloc(0)

/** The payload of a hole chunk. */
function hole(offset: number, length: number): Buffer {
  const size = Buffer.alloc(4)
  size.writeUInt32BE(length)
  return dataChunk(offset, size)
}

type Answer = (request: NbdRequest, send: SendChunk) => void

const data = (offset: number, length: number) => dataChunk(offset, Buffer.alloc(length, 'z'))

/** Reads that are answered otherwise than asked; each by chunks that are sound by themselves. */
const MALFORMED: Record<string, Answer> = {
  nothing: (_, send) => send(CHUNK.none, NOTHING),
  'the first half': ({ offset, length }, send) => send(CHUNK.data, data(offset, length / 2)),
  'the second half': ({ offset, length }, send) =>
    send(CHUNK.data, data(offset + length / 2, length / 2)),
  'a gap of one byte': ({ offset, length }, send) => {
    send(CHUNK.data, data(offset, 511), false)
    send(CHUNK.data, data(offset + 512, length - 512))
  },
  'a hole in place of half': ({ offset, length }, send) =>
    send(CHUNK.hole, hole(offset, length / 2)),
  'the same twice': ({ offset, length }, send) => {
    send(CHUNK.data, data(offset, length), false)
    send(CHUNK.data, data(offset, length))
  },
  'the first half twice': ({ offset, length }, send) => {
    send(CHUNK.data, data(offset, length / 2), false)
    send(CHUNK.data, data(offset, length / 2), false)
    send(CHUNK.none, NOTHING)
  },
  'halves that overlap by a byte': ({ offset, length }, send) => {
    send(CHUNK.data, data(offset, length / 2 + 1), false)
    send(CHUNK.hole, hole(offset + length / 2, length / 2))
  },
  'chunks of a byte': ({ offset, length }, send) => {
    for (let i = 0; i < 20_000; i++) send(CHUNK.data, data(offset + length - 1 - i, 1), false)
    send(CHUNK.hole, hole(offset, length - 20_000))
  },
  'chunks without end': ({ offset }, send) => {
    for (let i = 0; i < 20_000; i++) send(CHUNK.hole, hole(offset, 512), false)
  },
}

async function serverOf(t: Test, answer: Answer, multiConn = true) {
  return await startNbdServer(t, {
    size: SIZE,
    multiConn,
    answer(request, send) {
      if (request.type !== 'read') return false
      answer(request, send)
      return true
    },
  })
}

for (const [name, answer] of Object.entries(MALFORMED)) {
  t.test(`a read answered by ${name} fails`, async (t) => {
    for (const multiConn of [true, false]) {
      const server = await serverOf(t, answer, multiConn)
      const directory = t.testdir()
      const target = join(directory, 'out.qcow2')
      const failure = { code: 'IO', errno: 'EPROTO', why: /breaks the protocol.*read/ }
      await t.rejects(fullBackup(server.uri, target), failure)
      t.strictSame(await readdir(directory), [], 'nothing is left')
    }
  })
}

t.test('an answer in many chunks of any order is the bytes', async (t) => {
  const server = await serverOf(t, ({ offset, length }, send) => {
    for (let at = length - 4096; at >= 0; at -= 8192)
      send(CHUNK.data, data(offset + at, 4096), false)
    for (let at = 0; at < length; at += 8192) send(CHUNK.hole, hole(offset + at, 4096), false)
    send(CHUNK.none, NOTHING)
  })
  const directory = t.testdir()
  const expected = Buffer.alloc(SIZE)
  for (let at = 4096; at < SIZE; at += 8192) expected.fill('z', at, at + 4096)
  const disk = makeRaw(join(directory, 'disk.raw'), SIZE, [{ at: 0, bytes: expected }])
  const target = join(directory, 'out.qcow2')
  await fullBackup(server.uri, target)
  t.ok(qemuImgSame({ path: target, format: 'qcow2' }, { path: disk, format: 'raw' }))
})

t.test('a context that is answered twice is refused', async (t) => {
  const server = await startNbdServer(t, {
    answer({ type, length }, send) {
      if (type !== 'status') return false
      send(CHUNK.status, statusChunk(1, length, 0), false)
      send(CHUNK.status, statusChunk(1, length, 3))
      return true
    },
  })
  const target = join(t.testdir(), 'out.qcow2')
  await t.rejects(fullBackup(server.uri, target), { code: 'IO', errno: 'EPROTO' })
  t.notOk(existsSync(target))
})

t.test('answers about a large disk are put together, but for what is refused', async (t) => {
  const step = 2 ** 31
  const server = await startNbdServer(t, {
    size: 8 * step,
    answer({ type, offset, length }, send) {
      if (type !== 'status') return false
      if (offset === 2 * step) send(CHUNK.error, errorChunk(22))
      else send(CHUNK.status, statusChunk(1, length, offset === 5 * step ? 0 : 3))
      return true
    },
  })
  const source = await openSource(server.uri)
  t.teardown(() => source.close())
  const data: number[] = []
  for await (const batch of source.mappings()) {
    for (const { kind, start, length } of batch) if (kind === 'data') data.push(start, length)
  }
  t.same(data, [2 * step, step, 5 * step, step])
  const asked = server.requests.filter(({ type }) => type === 'status')
  t.ok(asked.every(({ length }) => length <= step))
})

t.test('block status that is refused each time: all is data, and a note says so', async (t) => {
  for (const multiConn of [true, false]) {
    const server = await startNbdServer(t, {
      size: SIZE,
      multiConn,
      answer({ type, offset, length }, send) {
        if (type === 'status') send(CHUNK.error, errorChunk(5))
        else if (type === 'read') send(CHUNK.data, data(offset, length))
        else return false
        return true
      },
    })
    const result = await fullBackup(server.uri, join(t.testdir(), 'out.qcow2'))
    t.match(result, {
      dataBytes: SIZE,
      zeroBytes: 0,
      notes: [/does not tell where data is.*Input/],
    })
    t.equal(result.notes?.length, 1)
    const { status, stdout, stderr } = await runCli(['extents', server.uri])
    t.equal(status, 0)
    t.strictSame(JSON.parse(stdout), [{ start: 0, length: SIZE, zero: false, hole: false }])
    const line = /^qcow2-backup: nbd\+unix:\S+: note: the server does not tell [^\n]*\n$/
    t.match(stderr, line)
  }
})

t.test(
  'answers that advance by next to nothing: the rest is data, and a note says so',
  async (t) => {
    let asked = 0
    const server = await startNbdServer(t, {
      size: 2 ** 32,
      multiConn: true,
      answer({ type, offset }, send) {
        if (type !== 'status') return false
        asked++
        send(CHUNK.status, statusChunk(1, 512, offset % 1024 === 0 ? 3 : 2))
        return true
      },
    })
    const { openSource } = await import('../../lib/source/open-source.ts')
    const source = await openSource(server.uri)
    t.teardown(() => source.close())
    const mappings = []
    for await (const batch of source.mappings()) mappings.push(...batch)
    const data = mappings.filter(({ kind }) => kind === 'data')
    t.equal(data[0].start, asked * 512)
    t.equal(
      data.reduce((sum, { length }) => sum + length, 0),
      2 ** 32 - asked * 512,
    )
    t.match(source.notes, [/make almost no progress/])
  },
)
