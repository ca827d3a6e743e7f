/** What ovirt-imageio's API says of images, one by one, over plain HTTP. */
import { spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { type RunningImages, raw, startImages } from '../support/image-server.ts'
import { qemuImg, qemuIo } from '../support/qemu.ts'

const KIB = 1024
const MIB = 2 ** 20

t.setTimeout(300_000)
const SIZE = 2 * MIB

/** A chain of two images with data, zeroes and compressed clusters, and a read-only ticket for it. */
async function setUp(
  t: Test,
): Promise<RunningImages & { id: string; content: Buffer; top: string }> {
  const dir = t.testdir()
  const [base, packed, top] = ['base', 'packed', 'top'].map((name) => join(dir, `${name}.qcow2`))
  qemuImg('create', '-q', '-f', 'qcow2', base, `${SIZE}`)
  qemuIo(base, 'write -P 1 0 300k', 'write -P 2 1M 70k')
  qemuImg('convert', '-c', '-O', 'qcow2', base, packed)
  qemuImg('create', '-q', '-f', 'qcow2', '-b', packed, '-F', 'qcow2', top)
  qemuIo(top, 'write -P 3 100k 50k', 'write -z 1M 64k')
  qemuImg('convert', '-O', 'raw', top, join(dir, 'raw'))
  const images = await startImages(t)
  const id = await images.ticket({ url: `file://${top}`, size: SIZE, filename: 'disk "1".raw' })
  return { ...images, id, top, content: readFileSync(join(dir, 'raw')) }
}

t.test('GET gives the content, whole and in ranges', async (t) => {
  const { ask, id, content } = await setUp(t)
  const whole = await ask('GET', `/images/${id}`)
  t.equal(whole.status, 200)
  t.equal(whole.headers['content-range'], undefined)
  t.equal(whole.headers['content-length'], `${SIZE}`)
  t.ok(whole.body.equals(content))
  for (const [first, last] of [
    [0, 0],
    [1, 511],
    [65_535, 65_536],
    [99_999, 1_100_000],
    [0, SIZE - 1],
  ]) {
    const { status, headers, body } = await ask('GET', `/images/${id}`, {
      headers: { range: `bytes=${first}-${last}` },
    })
    t.equal(status, 206)
    t.equal(headers['content-range'], `bytes ${first}-${last}/${SIZE}`)
    t.ok(body.equals(content.subarray(first, last + 1)), `${first} to ${last}`)
  }
  const open = await ask('GET', `/images/${id}`, { headers: { range: `bytes=${SIZE - 10}-` } })
  t.equal(open.status, 206)
  t.equal(open.headers['content-range'], `bytes ${SIZE - 10}-${SIZE - 1}/${SIZE}`)
  t.equal(
    open.headers['content-disposition'],
    "attachment; filename*=UTF-8''disk%20%221%22.raw",
    'a name ends no header',
  )
})

t.test('ranges that are none, or go too far, are 416', async (t) => {
  const { ask, id } = await setUp(t)
  const of = async (range: string) => {
    const { status, headers, text } = await ask('GET', `/images/${id}`, { headers: { range } })
    t.match(text, /^[^\n]+\n$/)
    t.equal(headers.connection, 'keep-alive', 'the connection stays usable')
    return [status, headers['content-range']]
  }
  for (const range of ['bytes=-5', 'bytes=5-4', 'bytes=0-1,3-4', 'Bytes=0-1', 'bytes = 0-1', 'x']) {
    t.strictSame(await of(range), [416, undefined], range)
  }
  for (const range of [`bytes=0-${SIZE}`, `bytes=${SIZE}-`, `bytes=${SIZE + 80}-`]) {
    t.strictSame(await of(range), [416, `bytes */${SIZE}`], range)
  }
})

t.test("a ticket's size bounds what is read, and is the total of ranges", async (t) => {
  const { ask, top, ticket } = await setUp(t)
  const small = await ticket({ url: `file://${top}`, size: MIB })
  const large = await ticket({ url: `file://${top}`, size: 3 * MIB })
  t.equal((await ask('GET', `/images/${small}`)).body.length, MIB)
  t.equal((await ask('GET', `/images/${large}`)).body.length, SIZE)
  const range = (id: string, range: string) => ask('GET', `/images/${id}`, { headers: { range } })
  t.equal((await range(large, 'bytes=0-0')).headers['content-range'], `bytes 0-0/${3 * MIB}`)
  t.equal((await range(small, `bytes=0-${MIB}`)).headers['content-range'], `bytes */${MIB}`)
  t.equal((await range(large, `bytes=0-${SIZE}`)).headers['content-range'], `bytes */${SIZE}`)
  const extents = (await ask('GET', `/images/${small}/extents`)).json
  t.equal(extents.at(-1).start + extents.at(-1).length, SIZE, 'extents cover the image')
})

t.test('OPTIONS says what can be done', async (t) => {
  const { ask, id, ticket, top } = await setUp(t)
  const reading = await ask('OPTIONS', `/images/${id}`)
  t.equal(reading.status, 200)
  t.equal(reading.headers.allow, 'OPTIONS,HEAD,GET')
  t.strictSame(reading.json, { features: ['checksum', 'extents'], max_readers: 8, max_writers: 8 })
  const url = `file://${dirname(top)}/new.raw`
  const written = await ticket({ url, size: MIB, ops: ['write'] })
  const writing = await ask('OPTIONS', `/images/${written}`)
  t.equal(writing.headers.allow, 'OPTIONS,HEAD,GET,PUT,PATCH')
  t.strictSame(writing.json.features, ['checksum', 'extents', 'flush', 'zero'])
  const any = await ask('OPTIONS', '/images/*')
  t.strictSame(any.json, { features: ['checksum', 'extents', 'flush', 'zero'] })
  t.equal((await ask('OPTIONS', '/images/')).status, 400)
  t.match(any.text, /\n$/)
})

t.test(
  'what is unknown, ended, or not allowed is 403 and closes; what is nowhere is 404',
  async (t) => {
    const { ask, id, ticket, top, tickets } = await setUp(t)
    const expired = await ticket({ url: `file://${top}`, size: SIZE, timeout: 0 })
    const refused = async (method: string, path: string, body?: string) => {
      const { status, headers, text } = await ask(method, path, { body })
      t.equal(status, 403, `${method} ${path}`)
      t.equal(headers.connection, 'close')
      t.equal(headers['content-type'], 'text/plain; charset=UTF-8')
      t.match(text, /^[^\n]+\n$/)
    }
    for (const one of ['nobody', expired, '..', '%2e%2e', '*'])
      await refused('GET', `/images/${one}`)
    await refused('GET', '/images/nobody/extents')
    await refused('OPTIONS', '/images/nobody')
    await refused('PUT', `/images/${id}`, 'x')
    await refused('PATCH', `/images/${id}`, '{"op":"flush"}')
    t.equal((await ask('GET', `/images/${id}`)).status, 200)
    tickets.extend(id, 0)
    await refused('GET', `/images/${id}`)
    const status = async (method: string, path: string) => (await ask(method, path)).status
    for (const path of [
      '/',
      '/images',
      '/info/',
      '/images/../x',
      '/images/a%2Fb',
      `/images/${id}/x`,
    ]) {
      t.equal(await status('GET', path), 404, path)
    }
    t.equal(await status('GET', '/images/'), 400)
    t.equal(await status('GET', '/images/%zz'), 400)
    for (const method of ['POST', 'DELETE', 'TRACE']) {
      const { status, headers } = await ask(method, `/images/${id}`)
      t.strictSame([status, headers.allow], [405, 'OPTIONS,HEAD,GET,PUT,PATCH'])
    }
    t.equal(await status('PUT', `/images/${id}/extents`), 405)
  },
)

t.test('extents: both contexts, errors, and ranges as an extension', async (t) => {
  const { ask, id } = await setUp(t)
  const list = async (query = '') => (await ask('GET', `/images/${id}/extents${query}`)).json
  const all = await list()
  t.strictSame(Object.keys(all[0]), ['start', 'length', 'zero', 'hole'])
  t.strictSame(await list('?context=zero'), all)
  t.strictSame(await list('?context=dirty&context=zero'), all, 'the last one counts')
  t.equal((await ask('GET', `/images/${id}/extents?context=dirty`)).status, 404)
  t.equal((await ask('GET', `/images/${id}/extents?context=both`)).status, 400)
  t.equal((await ask('GET', `/images/${id}/extents?start=-1`)).status, 400)
  t.match(all, [
    { start: 0, length: 320 * KIB, zero: false },
    { start: 320 * KIB, length: MIB - 320 * KIB, zero: true, hole: true },
    { start: MIB, length: 64 * KIB, zero: true, hole: false },
    { start: MIB + 64 * KIB, length: 64 * KIB, zero: false, hole: false },
    { start: MIB + 128 * KIB, zero: true, hole: true },
  ])
  t.strictSame(await list(`?start=${MIB + 10}&length=70000`), [
    { start: MIB + 10, length: 64 * KIB - 10, zero: true, hole: false },
    { start: MIB + 64 * KIB, length: 70000 - 64 * KIB + 10, zero: false, hole: false },
  ])
  t.strictSame(await list(`?start=${SIZE}`), [])
  t.strictSame(await list('?start=0&length=0'), [])
})

t.test('ETag, If-None-Match, If-Match and If-Range know another image', async (t) => {
  const { ask, id, top, ticket } = await setUp(t)
  const head = await ask('HEAD', `/images/${id}`)
  t.equal(head.status, 200)
  t.equal(head.body.length, 0)
  t.equal(head.headers['content-length'], `${SIZE}`)
  const etag = head.headers.etag!
  const status = async (headers: Record<string, string>, path = '') =>
    (await ask('GET', `/images/${id}${path}`, { headers })).status
  t.equal(await status({ 'if-none-match': etag }), 304)
  t.equal(await status({ 'if-none-match': etag }, '/extents'), 304)
  t.equal(await status({ 'if-match': etag }), 200)
  t.equal(await status({ 'if-match': '"other"' }), 412)
  t.equal(await status({ 'if-range': etag, range: 'bytes=0-0' }), 206)
  t.equal(await status({ 'if-range': '"other"', range: 'bytes=0-0' }), 200)
  const again = await ticket({ url: `file://${top}`, size: SIZE })
  t.equal((await ask('HEAD', `/images/${again}`)).headers.etag, etag)
})

t.test('checksums are those that hashlib makes of the blocks', async (t) => {
  const { ask, id, content, top } = await setUp(t)
  const file = join(dirname(top), 'content')
  writeFileSync(file, content)
  const script = `
import hashlib, sys
data = open(sys.argv[1], 'rb').read()
def new(name): return hashlib.blake2b(digest_size=32) if name == 'blake2b' else hashlib.new(name)
def digest(name, b):
    h = new(name); h.update(b); return h.digest()
for name in sys.argv[2].split(','):
    for size in (1 << 20, (1 << 20) + 4096, 4 << 20):
        print(digest(name, b''.join(digest(name, data[i:i + size]) for i in range(0, len(data), size))).hex())
`
  const { algorithms } = (await ask('GET', '/images/anything/checksum/algorithms')).json
  t.ok(algorithms.includes('blake2b') && algorithms.includes('sha256'))
  const names = ['blake2b', 'blake2s', 'sha1', 'sha256', 'sha512_256', 'sha3_256']
  const python = spawnSync('python3', ['-c', script, file, names.join()], { encoding: 'utf8' })
  const expected = python.stdout.trim().split('\n')
  t.equal(expected.length, names.length * 3, python.stderr)
  for (const algorithm of names) {
    for (const size of [MIB, MIB + 4096, 4 * MIB]) {
      const path = `/images/${id}/checksum?algorithm=${algorithm}&block_size=${size}`
      const checksum = expected.shift()
      t.strictSame((await ask('GET', path)).json, { algorithm, block_size: size, checksum })
    }
  }
  t.equal((await ask('GET', `/images/${id}/checksum`)).json.block_size, 4 * MIB)
  for (const query of [
    'algorithm=nope',
    'algorithm=shake_128',
    'block_size=4096',
    'block_size=1048577',
  ]) {
    t.equal((await ask('GET', `/images/${id}/checksum?${query}`)).status, 400, query)
  }
})

t.test('connections: kept, closed when asked; pages of other origins', async (t) => {
  const { ask, id, port } = await setUp(t)
  const get = `GET /images/${id}/extents HTTP/1.1\r\nHost: x\r\n`
  const both = await raw(port, `${get}\r\n${get}connection: close\r\n\r\n`)
  t.equal(both.match(/HTTP\/1\.1 200/g)?.length, 2)
  t.equal((await ask('GET', `/images/${id}?close=y`)).headers.connection, 'close')
  const headers = { origin: 'https://engine', 'access-control-request-headers': 'range' }
  const answer = await ask('OPTIONS', `/images/${id}`, { headers })
  t.equal(answer.headers['access-control-allow-origin'], '*')
  t.equal(answer.headers['access-control-allow-headers'], 'range')
  t.equal(answer.headers['access-control-max-age'], '86400')
  t.equal((await ask('GET', `/images/${id}`)).headers['access-control-allow-origin'], undefined)
})

t.test('a backend that fails is 500, and nothing of it is told', async (t) => {
  const { ask, ticket, top } = await setUp(t)
  const id = await ticket({ url: `file://${dirname(top)}/secret.qcow2`, size: SIZE })
  const answer = await ask('OPTIONS', `/images/${id}`)
  t.equal(answer.status, 500)
  t.notMatch(answer.text, /secret/)
  const nbd = await ticket({ url: `nbd:unix:${dirname(top)}/none:exportname=x`, size: SIZE })
  t.equal((await ask('OPTIONS', `/images/${nbd}`)).status, 500)
})

t.test('the gate: a backing file elsewhere is followed only where that is allowed', async (t) => {
  const dir = t.testdir({ a: {}, b: {} })
  const [base, top] = [join(dir, 'a', 'base'), join(dir, 'b', 'top')]
  qemuImg('create', '-q', '-f', 'qcow2', base, '1M')
  qemuIo(base, 'write -P 7 0 64k')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'qcow2', top)
  const status = async (allowPaths?: string[]) => {
    const { ask, ticket } = await startImages(t, { allowPaths })
    const answer = await ask('GET', `/images/${await ticket({ url: `file://${top}`, size: MIB })}`)
    return [answer.status, answer.body[0]]
  }
  t.equal((await status())[0], 500)
  t.strictSame(await status([join(dir, 'a')]), [200, 7])
})
