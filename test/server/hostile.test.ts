/** Clients that mean harm: many connections, slow ones, requests that are none, much at once. */
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { effort, THOROUGH } from '../support/effort.ts'
import { makeFragmented } from '../support/fragmented.ts'
import { raw, ask as request, startImages } from '../support/image-server.ts'

const MIB = 2 ** 20

t.setTimeout(300_000)

async function setUp(t: Test, options = {}) {
  const file = join(t.testdir(), 'disk')
  writeFileSync(file, Buffer.alloc(32 * MIB, 7))
  const images = await startImages(t, options)
  const url = `file://${file}`
  return { ...images, url, id: await images.ticket({ url, size: 32 * MIB, inactivity_timeout: 1 }) }
}

function open(t: Test, port: number): Socket {
  const socket = connect(port, '127.0.0.1')
  socket.on('error', () => {})
  t.teardown(() => socket.destroy())
  return socket
}

t.test('what is no HTTP is answered, and the connection ends', async (t) => {
  const { port, id } = await setUp(t)
  const long = 'x'.repeat(5000)
  const longer = 'x'.repeat(50_000)
  for (const [text, status] of [
    [`GET /images/${long} HTTP/1.1\r\nHost: x\r\nconnection: close\r\n\r\n`, 414],
    [`GET /images/${longer} HTTP/1.1\r\nHost: x\r\n\r\n`, 414],
    [`GET / HTTP/1.1\r\nHost: x\r\nx: ${longer}\r\n\r\n`, 431],
    [`FROBNICATE /images/${id} HTTP/1.1\r\nHost: x\r\n\r\n`, 405],
    ['nonsense\r\n\r\n', 405],
    ['GET nonsense\r\n\r\n', 400],
    [`GET /images/${id} HTTP/1.1\r\nHost: x\r\ncontent-length: -5\r\n\r\n`, 400],
    [`PUT /images/${id} HTTP/1.1\r\nHost: x\r\ncontent-length: 99999999999999999\r\n\r\n`, 400],
  ] as const) {
    const answer = await raw(port, text)
    t.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `), text.slice(0, 40))
  }
})

t.test('other paths lead to no file', async (t) => {
  const { port, id } = await setUp(t)
  for (const path of [
    '/images/../../etc/passwd',
    '/images/%2e%2e%2f%2e%2e%2fetc%2fpasswd',
    `/images/${id}/../../../etc/passwd`,
    `/images/${id}%00`,
    '//etc/passwd',
    'http://other/images/nobody',
  ]) {
    const answer = await raw(port, `GET ${path} HTTP/1.1\r\nHost: x\r\nconnection: close\r\n\r\n`)
    t.match(answer, /^HTTP\/1\.1 40[34] /, path)
  }
})

t.test('a client that takes nothing is cut off', async (t) => {
  const { port, id } = await setUp(t)
  const socket = open(t, port)
  socket.write(`GET /images/${id} HTTP/1.1\r\nHost: x\r\n\r\n`)
  await once(socket, 'readable')
  socket.pause()
  // Nothing is read, so only the server's end of the connection can end it.
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      if (!socket.write('x') || socket.destroyed) {
        clearInterval(timer)
        resolve()
      }
    }, 50)
    socket.on('error', () => {
      clearInterval(timer)
      resolve()
    })
  })
  t.ok(socket.bytesRead < 32 * MIB)
})

t.test('a client that brings nothing, or says nothing more, is cut off', async (t) => {
  const { port, ticket } = await setUp(t)
  const url = `file://${t.testdirName}/new`
  const id = await ticket({ url, size: MIB, ops: ['write'], inactivity_timeout: 1 })
  const put = open(t, port)
  put.write(`PUT /images/${id} HTTP/1.1\r\nHost: x\r\ncontent-length: 1000000\r\n\r\nabc`)
  const idle = open(t, port)
  idle.write(`OPTIONS /images/${id} HTTP/1.1\r\nHost: x\r\n\r\n`)
  await Promise.all([once(put.resume(), 'close'), once(idle.resume(), 'close')])
  t.pass('both were closed')
})

t.test('a flood of connections does not keep out those that are there', async (t) => {
  const { port, id, ask } = await setUp(t, { maxConnections: 20 })
  const kept = open(t, port)
  await once(kept, 'connect')
  kept.write(`OPTIONS /images/${id} HTTP/1.1\r\nHost: x\r\n\r\n`)
  await once(kept, 'data')
  const flood = Array.from({ length: 60 }, () => open(t, port))
  const dropped = flood.map((socket) => once(socket.resume(), 'close'))
  await Promise.race(dropped)
  kept.write(`OPTIONS /images/${id} HTTP/1.1\r\nHost: x\r\n\r\n`)
  const [answer] = await once(kept, 'data')
  t.match(`${answer}`, /^HTTP\/1\.1 200 /)
  for (const socket of flood) socket.destroy()
  while ((await ask('OPTIONS', `/images/${id}`).catch(() => ({ status: 0 }))).status !== 200);
})

t.test('a ticket is for sixteen connections at once', async (t) => {
  const { port, id } = await setUp(t)
  const sockets = Array.from({ length: 16 }, () => open(t, port))
  for (const socket of sockets) {
    socket.write(`OPTIONS /images/${id} HTTP/1.1\r\nHost: x\r\n\r\n`)
    t.match(`${(await once(socket, 'data'))[0]}`, /^HTTP\/1\.1 200 /)
  }
  t.equal((await request(port, 'GET', `/images/${id}`)).status, 503)
})

t.test('very many requests at once of one connection take no memory', async (t) => {
  const { port, id } = await setUp(t)
  const socket = open(t, port)
  const one = `GET /images/${id} HTTP/1.1\r\nHost: x\r\n\r\n`
  const before = process.memoryUsage().rss
  socket.write(one.repeat(500))
  await once(socket, 'readable')
  // The others have their turn: the server reads no further.
  for (let i = 0; i < 20; i++) await request(port, 'OPTIONS', `/images/${id}`)
  const grown = process.memoryUsage().rss - before
  t.ok(grown < 200 * MIB, `${grown} bytes`)
})

t.test(
  'very long lists of extents are sent in bounded memory, and others are served meanwhile',
  async (t) => {
    const image = join(t.testdir(), 'fragmented')
    const size = effort(2 ** 29, 5 * 2 ** 30)
    // Every other bit is set, so there are as many extents as bits.
    const bitmaps = [{ name: 'b', granularityBits: 9, bits: 0x55 }]
    makeFragmented(image, { size, clusterBits: 16, every: 2 ** 20, bitmaps })
    const { port, ticket, ask } = await startImages(t)
    const id = await ticket({ url: `file://${image}`, size, dirty: true })
    const before = process.memoryUsage().rss
    let [bytes, most] = [0, 0]
    const socket = open(t, port)
    socket.on('data', (data) => {
      bytes += data.length
      most = Math.max(most, process.memoryUsage().rss)
    })
    socket.write(
      `GET /images/${id}/extents?context=dirty HTTP/1.1\r\nHost: x\r\nconnection: close\r\n\r\n`,
    )
    const closed = once(socket, 'close')
    t.equal((await ask('OPTIONS', '/images/*')).status, 200)
    await closed
    t.ok(bytes > (size / 512) * 60, `${bytes} bytes`)
    // A short list is no more than what the garbage collector leaves for a while.
    if (THOROUGH) t.ok(most - before < 200 * MIB, `${most - before} bytes more for ${bytes}`)
  },
)

t.test("Python's http.client and curl read, write and list", async (t) => {
  const { port, id, ticket } = await setUp(t)
  const path = join(t.testdirName, 'new.qcow2')
  const written = await ticket({ url: `file://${path}`, size: 4 * MIB, ops: ['write'] })
  const script = `
import http.client, json, sys
port, read, write = int(sys.argv[1]), sys.argv[2], sys.argv[3]
con = http.client.HTTPConnection('127.0.0.1', port)
def ask(method, path, body=None, **headers):
    con.request(method, path, body=body, headers=headers)
    res = con.getresponse()
    return res.status, res.read(), res
status, body, _ = ask('OPTIONS', '/images/' + read)
assert status == 200 and json.loads(body)['max_readers'] == 8
status, body, _ = ask('GET', '/images/' + read + '/extents')
assert json.loads(body) == [{'start': 0, 'length': 32 << 20, 'zero': False, 'hole': False}]
status, body, res = ask('GET', '/images/' + read, Range='bytes=5-9')
assert (status, body, res.getheader('content-range')) == (206, b'\\7' * 5, 'bytes 5-9/%d' % (32 << 20))
status, body, _ = ask('PUT', '/images/' + write + '?flush=n', b'a' * 100000, **{'Content-Range': 'bytes 65536-165535/*'})
assert status == 200 and body == b''
status, _, _ = ask('PATCH', '/images/' + write, json.dumps({'op': 'zero', 'size': 10, 'offset': 70000, 'flush': True}))
assert status == 200
status, body, _ = ask('GET', '/images/nobody')
assert status == 403 and body.endswith(b'\\n')
print('done')
`
  // Not waited for in one piece: the server is in this process.
  const run = (tool: string, ...args: string[]) =>
    new Promise<string>((resolve) => {
      execFile(tool, args, { encoding: 'latin1' }, (_, stdout, stderr) => resolve(stdout + stderr))
    })
  t.equal(await run('python3', '-c', script, `${port}`, id, written), 'done\n')
  const url = `http://127.0.0.1:${port}/images`
  t.equal(await run('curl', '-s', '-r', '0-3', `${url}/${id}`), '\x07\x07\x07\x07')
  const patch = ['-s', '-X', 'PATCH', '-d', '{"op":"flush"}', '-w', '%{http_code}']
  t.equal(await run('curl', ...patch, `${url}/${written}`), '200')
})
