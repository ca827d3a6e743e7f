/** imageio servers that do what no honest one does: each ends in an error that says so, soon, in little memory. */
import { existsSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import t from 'tap'
import { fullBackup, incrementalBackup, openSource, restore } from '../../lib/index.ts'
import { makeRaw, noise } from '../support/disks.ts'
import {
  type ImageioDaemonOptions,
  json,
  refuse,
  startImageioDaemon,
  TICKET,
} from '../support/imageio-daemon.ts'

const MIB = 2 ** 20
const SIZE = 2 * MIB
/** Far from what a listed extent or a small answer needs. */
const MEMORY = 150 * MIB

/** Only who waits for this waits for little; on a busy machine anything may take as long. */
const SILENT =
  /no answer within 0.1 s|the answer stopped, for 0.1 s|only \d+ bytes of the answer came in 0.1 s/

type Answer = (request: IncomingMessage, response: ServerResponse) => void

/** Requests for data; one byte is asked for to learn the size. */
function isData({ method, headers, url = '' }: IncomingMessage): boolean {
  const [first, last] = (headers.range ?? '').match(/\d+/g) ?? []
  return method === 'GET' && first !== last && !url.includes('extents')
}

const onOptions = (answer: Answer) => when(({ method }) => method === 'OPTIONS', answer)
const onExtents = (answer: Answer) => when(({ url = '' }) => url.includes('/extents'), answer)
const onData = (answer: Answer) => when(isData, answer)
const onWrite = (answer: Answer) =>
  when(({ method = '' }) => ['PUT', 'PATCH'].includes(method), answer)

function when(
  is: (request: IncomingMessage) => boolean,
  answer: Answer,
): ImageioDaemonOptions['instead'] {
  return (request, response) => {
    if (!is(request)) return false
    answer(request, response)
    return true
  }
}

/** Writes for as long as it is read. */
function endless(response: ServerResponse, chunk: string | Buffer): void {
  const more = () => {
    for (let i = 0; i < 100 && !response.destroyed; i++) if (!response.write(chunk)) break
    if (!response.destroyed) response.once('drain', more)
  }
  more()
}

/** Sends a byte now and then. */
function dribble(response: ServerResponse): void {
  const timer = setInterval(() => response.write('0'), 20)
  response.on('close', () => clearInterval(timer))
}

const part = (range: string, length: number) => ({
  'content-range': `bytes ${range}`,
  'content-length': length,
})

const redirect: Answer = (_request, response) => {
  response.writeHead(302, { location: 'http://127.0.0.1:1/images/other' }).end()
}

/** What each does, and what full and incremental say about it. */
const READING: Record<string, [ImageioDaemonOptions['instead'], RegExp]> = {
  'redirects at once': [onOptions(redirect), /cannot connect: the server redirects \(302\)/],
  'redirects extents': [onExtents(redirect), /extents: the server redirects \(302\)/],
  'redirects data': [onData(redirect), /read at \d+: the server redirects \(302\)/],
  'sends garbage': [
    onOptions((request) => request.socket.end(Buffer.alloc(100_000, 'A'))),
    /cannot connect: what the server sends is not HTTP/,
  ],
  'sends headers without end': [
    onOptions((_, response) => {
      response.socket?.write('HTTP/1.1 200 OK\r\n')
      response.socket?.end('x: yyyyyyyyyyyyyyyyyyyyyyyy\r\n'.repeat(10_000))
    }),
    /not HTTP as it should be/,
  ],
  'says nothing': [onOptions(() => {}), SILENT],
  'is down behind': [
    onOptions((_, response) => refuse(response, 500, `${TICKET} \u001b[2J\u202e failed`)),
    /the server failed \(500\); the server says: … \\x1b\[2J\\u\{202e\} failed/,
  ],
  'does not know the ticket': [
    onOptions((_, response) => refuse(response, 403, 'No such ticket')),
    /does not accept the ticket \(403\).*start a new transfer/,
  ],
  'is another service': [
    onOptions((_, response) => refuse(response, 404, '<html>')),
    /no such thing \(404\)/,
  ],
  'explains without end': [
    onOptions((_, response) => endless(response.writeHead(403), 'x'.repeat(65536))),
    /does not accept the ticket \(403\).*x{200}$/,
  ],
  'tells of abilities without end': [
    onOptions((_, response) => endless(response, '[ '.repeat(1000))),
    /more than 65536 bytes/,
  ],
  'tells of no abilities': [onOptions((_, response) => json(response, [])), /not a JSON object/],
  'has features of numbers': [
    onOptions((_, response) => json(response, { features: [1] })),
    /not a list of names/,
  ],
  'takes no readers': [
    onOptions((_, response) => json(response, { features: [], max_readers: 0 })),
    /max_readers is not a number/,
  ],
  'tells no size': [
    when(
      ({ headers }) => headers.range === 'bytes=0-0',
      (_, response) => response.writeHead(206, { 'content-length': 1 }).end('x'),
    ),
    /cannot find out how large it is: the answer does not say which part/,
  ],
  'tells an absurd size': [
    when(
      ({ headers }) => headers.range === 'bytes=0-0',
      (_, response) => response.writeHead(206, part('0-0/9999999999999999', 1)).end('x'),
    ),
    /larger than 8 PiB/,
  ],
  'tells nothing of extents for long': [onExtents(() => {}), SILENT],
  'sends blanks for extents': [
    onExtents((_, response) => endless(response, ' '.repeat(1000))),
    /no extent ends in/,
  ],
  'sends one extent without end': [
    onExtents((_, response) => endless(response, '[{"start":0,"x":"'.padEnd(3000, 'y'))),
    /no extent ends in|not a list/,
  ],
  'sends extents of a byte': [
    onExtents((_, response) => {
      const many = Array.from(
        { length: 5000 },
        (_, start) => `{"start":${start},"length":1,"dirty":true}`,
      )
      response.end(`[${many}]`)
    }),
    /absurd/,
  ],
  'sends extents of another disk': [
    onExtents((_, response) => json(response, [{ start: 0, length: 2 * SIZE, dirty: true }])),
    /goes beyond the disk, which ends at 2097152/,
  ],
  'sends too few extents': [
    onExtents((_, response) => json(response, [{ start: 0, length: MIB, dirty: true }])),
    /extents end at 1048576, the disk at 2097152/,
  ],
  'sends extents with a gap': [
    onExtents((_, response) => json(response, [{ start: 512, length: SIZE - 512, dirty: true }])),
    /does not start at 0/,
  ],
  'sends no JSON': [onExtents((_, response) => response.end('<html>{}</html>')), /not a list/],
  'heeds no range': [
    onData((_, response) => response.end(Buffer.alloc(SIZE))),
    /does not heed the range/,
  ],
  'sends another part': [
    onData((_, response) => {
      response
        .writeHead(206, part(`512-${SIZE - 1}/${SIZE}`, SIZE - 512))
        .end(Buffer.alloc(SIZE - 512))
    }),
    /another part than was asked for/,
  ],
  'lies about the length': [
    onData(({ headers }, response) => {
      const range = headers.range!.slice(6)
      response.writeHead(206, part(`${range}/${SIZE}`, 10)).end('0123456789')
    }),
    /the answer has 10 bytes instead of/,
  ],
  'sends less than it says': [
    onData(({ headers, socket }, response) => {
      const [first, last] = headers.range!.match(/\d+/g)!.map(Number)
      response.writeHead(206, part(`${first}-${last}/${SIZE}`, last - first + 1))
      response.write(Buffer.alloc(1000), () => socket.destroy())
    }),
    /the server closed the connection/,
  ],
  'ends early': [
    onData(({ headers }, response) => {
      const range = headers.range!.slice(6)
      response.writeHead(206, { 'content-range': `bytes ${range}/${SIZE}` }).end('0123456789')
    }),
    /ends after 10 bytes/,
  ],
  'sends data without end': [
    onData(({ headers }, response) => {
      const range = headers.range!.slice(6)
      response.writeHead(206, { 'content-range': `bytes ${range}/${SIZE}` })
      endless(response, Buffer.alloc(65536))
    }),
    /longer than was asked for/,
  ],
  'encodes unasked': [
    onData(({ headers }, response) => {
      const range = `bytes ${headers.range!.slice(6)}/${SIZE}`
      response.writeHead(206, { 'content-range': range, 'content-encoding': 'gzip' }).end('x')
    }),
    /encodes its answer unasked/,
  ],
  'sends data a byte at a time': [
    onData(({ headers }, response) => {
      const [first, last] = headers.range!.match(/\d+/g)!.map(Number)
      response.writeHead(206, part(`${first}-${last}/${SIZE}`, last - first + 1))
      dribble(response)
    }),
    SILENT,
  ],
  'stops in the middle': [
    onData(({ headers }, response) => {
      const [first, last] = headers.range!.match(/\d+/g)!.map(Number)
      response.writeHead(206, part(`${first}-${last}/${SIZE}`, last - first + 1))
      response.write('x')
    }),
    SILENT,
  ],
  'ends the ticket meanwhile': [
    onData((_, response) => refuse(response, 403, 'Ticket expired')),
    /read at \d+: the server does not accept the ticket \(403\)/,
  ],
  'shrinks meanwhile': [
    onData((_, response) => {
      response.setHeader('content-range', 'bytes */4096')
      refuse(response, 416, 'Requested range not satisfiable')
    }),
    /outside of the image \(416\): the image that it hands out has 4096 bytes/,
  ],
}

for (const [name, [instead, why]] of Object.entries(READING)) {
  t.test(`a server that ${name}`, async (t) => {
    const directory = t.testdir()
    const dirty = [{ start: 0, length: SIZE, dirty: true, zero: false }]
    const daemon = await startImageioDaemon(t, { bytes: noise(SIZE), dirty, instead })
    const backing = makeRaw(join(directory, 'full.raw'), SIZE, [])
    const out = join(directory, 'out.qcow2')
    const before = process.memoryUsage().rss
    const options = { retries: 0, ...(why === SILENT && { timeoutMs: 100 }) }
    for (const copy of [
      () => fullBackup(daemon.url, out, options),
      () => incrementalBackup(daemon.url, out, { ...options, backing, backingFormat: 'raw' }),
    ]) {
      const error = await copy().catch((error) => error)
      t.match(error, { code: 'IO', why }, error.message)
      t.notMatch(`${error.stack} ${error.cause?.stack}`, TICKET)
      t.notMatch(error.message, /[\p{Cc}\p{Cf}]/u)
    }
    t.notOk(existsSync(out))
    t.ok(process.memoryUsage().rss - before < MEMORY)
  })
}

t.test('a disk that changes its size is an error', async (t) => {
  let asked = 0
  const growing = await startImageioDaemon(t, {
    bytes: noise(SIZE),
    instead(request, response) {
      if (!isData(request) || asked++ < 1) return false
      const [first, last] = request.headers.range!.match(/\d+/g)!.map(Number)
      const range = `${first}-${last}/${2 * SIZE}`
      response.writeHead(206, part(range, last - first + 1)).end(Buffer.alloc(last - first + 1))
      return true
    },
  })
  const out = join(t.testdir(), 'out.qcow2')
  const options = { connections: 1, requests: 1, retries: 0 }
  await t.rejects(fullBackup(growing.url, out, options), {
    code: 'IO',
    why: /the image changed: it has 4194304 bytes, and had 2097152 before/,
  })
  let probes = 0
  const shrinking = await startImageioDaemon(t, {
    bytes: noise(SIZE),
    instead(request, response) {
      if (request.headers.range !== 'bytes=0-0' || probes++ === 0) return false
      response.writeHead(206, part('0-0/512', 1)).end('x')
      return true
    },
  })
  await t.rejects(fullBackup(shrinking.url, out), {
    code: 'SOURCE_CHANGED',
    why: /shrank from 2097152 to 512 bytes/,
  })
})

t.test('what passes is tried again', async (t) => {
  const bytes = noise(SIZE)
  const dirty = [
    { start: 0, length: MIB, dirty: true, zero: false },
    { start: MIB, length: MIB, dirty: false, zero: false },
  ]
  let lists = 0
  let reads = 0
  const daemon = await startImageioDaemon(t, {
    bytes,
    dirty,
    instead(request, response) {
      if (request.url!.includes('/extents') && lists++ < 2) {
        if (lists === 1) refuse(response, 500, 'Server failed')
        else
          response
            .writeHead(200, { 'content-length': 1000 })
            .write('[{"start":0,"length":1048576,"dirty":true},', () => request.socket.destroy())
        return true
      }
      if (!isData(request) || reads++ > 1) return false
      request.socket.destroy()
      return true
    },
  })
  const directory = t.testdir()
  const backing = makeRaw(join(directory, 'full.raw'), SIZE, [])
  const out = join(directory, 'out.qcow2')
  const result = await incrementalBackup(daemon.url, out, { backing, backingFormat: 'raw' })
  t.match(result, { dataBytes: MIB, unchangedBytes: MIB })
  t.equal(lists, 3)
})

t.test('a ticket that has ended is not asked for again and again', async (t) => {
  const daemon = await startImageioDaemon(t, {
    bytes: noise(SIZE),
    instead: onData((_, response) => refuse(response, 403, 'Ticket expired')),
  })
  await t.rejects(fullBackup(daemon.url, join(t.testdir(), 'out'), { retries: 2, connections: 1 }))
  t.ok(daemon.requests.length < 6, daemon.requests.join('; '))
})

/** What each does that takes writes, and what restore says about it. */
const WRITING: Record<string, [Answer, RegExp]> = {
  'redirects writes': [redirect, /the server redirects \(302\)/],
  'refuses writes': [(_, response) => refuse(response, 403, 'no'), /not accept the ticket \(403\)/],
  'has no room': [(_, response) => refuse(response, 416, 'no'), /outside of the image \(416\)/],
  'answers writes with garbage': [
    ({ socket }) => void socket.end(Buffer.alloc(1000, 'A')),
    /not HTTP|closed the connection/,
  ],
}

for (const [name, [answer, why]] of Object.entries(WRITING)) {
  t.test(`a server that ${name}`, async (t) => {
    const directory = t.testdir()
    const disk = makeRaw(join(directory, 'disk.raw'), SIZE, [{ at: 0, bytes: noise(MIB) }])
    const instead = onWrite(answer)
    const daemon = await startImageioDaemon(t, { bytes: Buffer.alloc(SIZE), ops: 'write', instead })
    const error = await restore(disk, daemon.url, { format: 'raw' }).catch((error) => error)
    t.match(error, { code: 'IO', why }, error.message)
    t.match(error.why, /incomplete; do not use it$/)
  })
}

t.test('a million extents are used as they come', async (t) => {
  const count = 1_000_000
  const granule = 4096
  const size = count * granule
  const daemon = await startImageioDaemon(t, {
    bytes: Buffer.alloc(1),
    instead(request, response) {
      const { range } = request.headers
      if (range !== undefined) {
        response.writeHead(206, part(`${range.slice(6)}/${size}`, 1)).end('x')
        return true
      }
      if (!request.url!.includes('/extents')) return false
      let at = 0
      const more = () => {
        for (;;) {
          if (at === count) return void response.end(']\n')
          let text = ''
          for (const end = Math.min(count, at + 1000); at < end; at++) {
            text += `${at === 0 ? '[' : ','}{"start": ${at * granule}, "length": ${granule}, "zero": ${at % 2 === 0}, "hole": false}`
          }
          if (!response.write(text)) break
        }
        response.once('drain', more)
      }
      more()
      return true
    },
  })
  const source = await openSource(daemon.url)
  const before = process.memoryUsage().rss
  let found = 0
  let peak = 0
  for await (const batch of source.mappings()) {
    found += batch.length
    peak = Math.max(peak, process.memoryUsage().rss)
  }
  t.equal(found, count)
  t.ok(peak - before < MEMORY, `${(peak - before) / MIB} MiB`)
  await source.close()
})
