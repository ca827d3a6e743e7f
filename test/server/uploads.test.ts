/** Images that clients bring, in any order, into new files. */
import { randomBytes } from 'node:crypto'
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { randomNumbers } from '../support/changes.ts'
import { raw, startImages } from '../support/image-server.ts'
import { qemuImgCheck, qemuImgSame } from '../support/qemu.ts'

const MIB = 2 ** 20

t.setTimeout(300_000)
const SIZE = 16 * MIB

/** A disk with data at both ends, holes, and zeroes that are written. */
function content(): Buffer {
  const disk = Buffer.alloc(SIZE)
  for (const [start, length] of [
    [0, 70_000],
    [3 * MIB + 512, MIB],
    [SIZE - 100_000, 100_000],
  ]) {
    randomBytes(length).copy(disk, start)
  }
  return disk
}

for (const format of ['raw', 'qcow2'] as const) {
  t.test(
    `an upload in random order becomes a ${format} image when its ticket is closed`,
    async (t) => {
      const dir = t.testdir()
      const disk = content()
      writeFileSync(join(dir, 'expected'), disk)
      const { ask, ticket, tickets, askControl } = await startImages(t)
      const path = join(dir, `new.${format}`)
      const id = await ticket({ url: `file://${path}`, size: SIZE, ops: ['write'], format })
      const random = randomNumbers(3)
      const pieces: { start: number; end: number }[] = []
      for (let start = 0; start < SIZE; ) {
        const end = Math.min(SIZE, start + 1 + random(3 * MIB))
        pieces.splice(random(pieces.length + 1), 0, { start, end })
        start = end
      }
      for (const { start, end } of pieces) {
        const body = disk.subarray(start, end)
        // What was there before must be gone.
        const zero = body.every((byte) => byte === 0)
        const sent = zero ? Buffer.alloc(body.length, 1) : body
        const headers = { 'content-range': `bytes ${start}-${end - 1}/*` }
        t.equal((await ask('PUT', `/images/${id}?flush=n`, { headers, body: sent })).status, 200)
        if (!zero) continue
        const patch = JSON.stringify({ op: 'zero', offset: start, size: end - start })
        t.equal((await ask('PATCH', `/images/${id}`, { body: patch })).status, 200)
      }
      t.ok((await ask('GET', `/images/${id}`)).body.equals(disk), 'it can be read back')
      t.equal((await ask('GET', `/images/${id}/extents?context=dirty`)).status, 404)
      const extents = (await ask('GET', `/images/${id}/extents`)).json
      for (const { start, length, zero } of extents) {
        if (zero) t.ok(disk.subarray(start, start + length).every((byte) => byte === 0))
      }
      t.equal((await ask('PATCH', `/images/${id}`, { body: '{"op":"flush"}' })).status, 200)
      t.notOk(existsSync(path), 'it has no name before')
      t.equal(tickets.show(id)?.transferred, SIZE)
      t.equal((await askControl('DELETE', `/tickets/${id}`)).status, 204)
      t.equal(statSync(path).mode & 0o777, 0o600)
      t.ok(qemuImgSame({ path, format }, { path: join(dir, 'expected'), format: 'raw' }))
      t.ok(statSync(path).blocks * 512 < SIZE / 2, 'it is sparse')
      if (format === 'qcow2') t.equal(qemuImgCheck(path).status, 0)
    },
  )
}

t.test('an upload that is not closed well leaves nothing', async (t) => {
  const dir = t.testdir()
  const { ask, ticket, tickets } = await startImages(t)
  const path = join(dir, 'new.qcow2')
  const fields = { url: `file://${path}`, size: SIZE, ops: ['write' as const] }
  const put = async (id: string, query = '') =>
    (await ask('PUT', `/images/${id}${query}`, { body: 'data' })).status
  const unflushed = await ticket(fields)
  t.equal(await put(unflushed, '?flush=n'), 200)
  await tickets.cancel(unflushed)
  t.notOk(existsSync(path), 'not flushed')
  const discarded = await ticket(fields)
  t.equal(await put(discarded), 200)
  await tickets.cancel(discarded, { discard: true })
  t.notOk(existsSync(path), 'discarded')
  const untouched = await ticket(fields)
  await tickets.cancel(untouched)
  t.notOk(existsSync(path), 'nothing was written')
  const expired = await ticket(fields)
  t.equal(await put(expired), 200)
  tickets.extend(expired, 0)
  while (!tickets.show(expired)?.canceled) await new Promise((resolve) => setTimeout(resolve, 5))
  tickets.extend(expired, 60)
  t.equal(await put(expired), 403, 'what was there is gone, and cannot go on')
  await tickets.cancel(expired)
  t.notOk(existsSync(path), 'expired')
  const empty = await ticket(fields)
  t.equal((await ask('PATCH', `/images/${empty}`, { body: '{"op":"flush"}' })).status, 200)
  await tickets.cancel(empty)
  t.ok(existsSync(path), 'an empty disk that was flushed')
})

t.test('a file that exists is never written to', async (t) => {
  const dir = t.testdir({ old: 'old', 'old.qcow2': 'old' })
  const { askControl } = await startImages(t)
  for (const name of ['old', 'old.qcow2']) {
    const ticket = { size: SIZE, ops: ['write'], timeout: 9, url: `file://${dir}/${name}` }
    const { status, text } = await askControl('PUT', '/tickets/x', { body: JSON.stringify(ticket) })
    t.equal(status, 400)
    t.match(text, /exists/)
    t.equal(readFileSync(join(dir, name), 'utf8'), 'old')
  }
  const url = `file://${dir}/later.qcow2`
  const ticket = { uuid: 'late', size: SIZE, ops: ['write'], timeout: 9, url }
  const { ask, askControl: control } = await startImages(t)
  await control('PUT', '/tickets/x', { body: JSON.stringify(ticket) })
  t.equal((await ask('PUT', '/images/late', { body: 'x' })).status, 200)
  writeFileSync(join(dir, 'later.qcow2'), 'mine')
  const closed = await control('DELETE', '/tickets/late')
  t.equal(closed.status, 500)
  t.match(closed.text, /later\.qcow2: exists/)
  t.equal(readFileSync(join(dir, 'later.qcow2'), 'utf8'), 'mine')
})

t.test('writes that are wrong are refused, and change nothing', async (t) => {
  const dir = t.testdir()
  const { ask, ticket, port } = await startImages(t)
  const id = await ticket({ url: `file://${dir}/new`, size: MIB, ops: ['write'] })
  const put = async (contentRange: string, body = 'abc', query = '') => {
    const headers = { 'content-range': contentRange }
    const { status, headers: got } = await ask('PUT', `/images/${id}${query}`, { headers, body })
    return [status, got['content-range']]
  }
  t.strictSame(await put('bytes 5-7/*'), [200, undefined])
  t.strictSame(await put('bytes 5-*/1000'), [200, undefined], 'only the first counts')
  t.strictSame(await put('bytes 5-6/*', 'long body'), [200, undefined])
  for (const wrong of ['bytes=5-7', 'bytes 5', 'bytes a-b/*', 'bytes 5-7', 'Bytes 5-7/*', '']) {
    if (wrong !== '') t.strictSame((await put(wrong))[0], 400, wrong)
  }
  t.strictSame(await put('bytes 0-2/*', 'abc', '?flush=yes'), [400, undefined])
  t.strictSame(await put(`bytes ${MIB - 2}-*/*`), [416, `bytes */${MIB}`])
  const patch = async (body: string) => (await ask('PATCH', `/images/${id}`, { body })).status
  for (const body of [
    '{"op":"zero"}',
    '{"op":"zero","size":-1}',
    '{"op":"zero","size":"5"}',
    '{"op":"zero","size":5,"offset":1.5}',
    '{"op":"zero","size":5,"flush":1}',
    '{"op":"trim"}',
    '[]',
    '{',
  ]) {
    t.equal(await patch(body), 400, body)
  }
  t.equal(await patch(`{"op":"zero","size":10,"offset":${MIB - 9}}`), 416)
  t.equal(await patch('{"op":"zero","size":2,"offset":5,"flush":true}'), 200)
  const { body } = await ask('GET', `/images/${id}`, { headers: { range: 'bytes=0-15' } })
  t.equal(body.toString('latin1'), '\0\0\0\0\0\0\0ng body\0\0')
  const chunked = `PUT /images/${id} HTTP/1.1\r\nHost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n`
  t.match(await raw(port, chunked), /^HTTP\/1\.1 400 .*connection: close/is)
  const none = `PUT /images/${id} HTTP/1.1\r\nHost: x\r\nconnection: close\r\n\r\n`
  t.match(await raw(port, none), /^HTTP\/1\.1 400 /)
  const short = `PUT /images/${id} HTTP/1.1\r\nHost: x\r\ncontent-length: 9\r\n\r\nabc`
  t.match(await raw(port, short), /^HTTP\/1\.1 400 /, 'a body that ends too early')
  const expect = `PUT /images/nobody HTTP/1.1\r\nHost: x\r\ncontent-length: 3\r\nexpect: 100-continue\r\n\r\nabc`
  t.match(await raw(port, expect), /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 403 /)
})
