/** Tickets: over the control service as ovirt-imageio has it, and as functions. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { effort } from '../support/effort.ts'
import { type RunningImages, startImages } from '../support/image-server.ts'
import { qemuImg } from '../support/qemu.ts'

t.setTimeout(300_000)

const MIB = 2 ** 20

interface Fields {
  [key: string]: unknown
}

async function setUp(
  t: Test,
): Promise<RunningImages & { dir: string; put(fields: Fields, path?: string): Promise<number> }> {
  const dir = t.testdir()
  qemuImg('create', '-q', '-f', 'raw', join(dir, 'disk'), '1M')
  const images = await startImages(t)
  const usual = { uuid: 'n3', size: MIB, ops: ['read'], timeout: 60, url: `file://${dir}/disk` }
  return {
    ...images,
    dir,
    async put(fields, path = 'x') {
      const body = JSON.stringify({ ...usual, ...fields })
      const { status, text } = await images.askControl('PUT', `/tickets/${path}`, { body })
      if (status === 400) t.match(text, /^[^\n]+\n$/)
      return status
    },
  }
}

t.test('a ticket is added by the id in its body, shown, extended and removed', async (t) => {
  const { put, ask, askControl, dir } = await setUp(t)
  t.equal(await put({ transfer_id: 'job', filename: 'f', future: 1 }, 'OTHER'), 200)
  t.equal((await askControl('GET', '/tickets/OTHER')).status, 404)
  const shown = await askControl('GET', '/tickets/n3')
  t.equal(shown.status, 200)
  t.match(shown.text, /\n$/)
  const { expires, ...rest } = shown.json
  t.strictSame(rest, {
    uuid: 'n3',
    size: MIB,
    ops: ['read'],
    timeout: 60,
    url: `file://${dir}/disk`,
    inactivity_timeout: 60,
    transfer_id: 'job',
    filename: 'f',
    sparse: false,
    dirty: false,
    active: false,
    canceled: false,
    connections: 0,
    idle_time: 0,
    transferred: 0,
  })
  const now = Number(process.hrtime.bigint() / 1_000_000_000n)
  t.ok(expires > now && expires <= now + 61, 'on the monotonic clock')
  t.equal((await ask('GET', '/images/n3')).status, 200)
  t.equal((await askControl('PATCH', '/tickets/n3', { body: '{"timeout":0}' })).status, 200)
  t.equal((await ask('GET', '/images/n3')).status, 403)
  t.equal((await askControl('PATCH', '/tickets/n3', { body: '{"timeout":50}' })).status, 200)
  t.equal((await ask('GET', '/images/n3')).status, 200)
  t.equal((await askControl('PATCH', '/tickets/no', { body: '{"timeout":50}' })).status, 404)
  t.equal((await askControl('PATCH', '/tickets/n3', { body: '{"timeout":-1}' })).status, 400)
  for (let i = 0; i < 2; i++) t.equal((await askControl('DELETE', '/tickets/n3')).status, 204)
  t.equal((await ask('GET', '/images/n3')).status, 403)
  t.equal((await askControl('GET', '/tickets/n3')).status, 404)
})

t.test('transferred counts each byte once', async (t) => {
  const { put, ask, askControl } = await setUp(t)
  await put({})
  for (const range of ['bytes=0-99', 'bytes=50-149', 'bytes=1000-1009']) {
    await ask('GET', '/images/n3', { headers: { range } })
  }
  t.equal((await askControl('GET', '/tickets/n3')).json.transferred, 160)
  await put({ uuid: 'two', ops: ['read', 'write'], url: 'nbd:host:1' })
  t.notOk('transferred' in (await askControl('GET', '/tickets/two')).json)
})

t.test('what is no ticket is refused with its field', async (t) => {
  const { put, askControl } = await setUp(t)
  const wrong: Fields[] = [
    { size: undefined },
    { size: '5' },
    { size: -1 },
    { ops: [] },
    { ops: ['erase'] },
    { ops: 'read' },
    { timeout: undefined },
    { timeout: 1.5 },
    { url: undefined },
    { url: 'http://host/images/x' },
    { url: '/disk' },
    { url: 'file://host/disk' },
    { url: 'file:///a%00b' },
    { url: 'file:///a%zz' },
    { url: 'nbd:unix:' },
    { url: 'repo:web1/sda' },
    { url: 'repo:web1@p/sda', ops: ['write'] },
    { uuid: '' },
    { uuid: 'a/b' },
    { uuid: 'x'.repeat(1025) },
    { inactivity_timeout: 0 },
    { dirty: 'yes' },
    { bitmap: 'b' },
    { format: 'vmdk' },
    { size: 1000, ops: ['write'], url: 'file:///new' },
  ]
  for (const fields of wrong) t.equal(await put(fields), 400, JSON.stringify(fields).slice(0, 80))
  t.equal(await put({}, ''), 400, 'the path is to have some id')
  for (const body of ['', '[]', 'x', '{"uuid":']) {
    t.equal((await askControl('PUT', '/tickets/x', { body })).status, 400, body)
  }
  t.equal((await askControl('POST', '/tickets/x')).status, 405)
  t.equal((await askControl('GET', '/images/x')).status, 404)
  const { status } = await askControl('PUT', '/tickets/x', { body: ' '.repeat(100_000) })
  t.equal(status, 400)
})

t.test('urls of every form', async (t) => {
  const { put } = await setUp(t)
  const forms = [
    'nbd:unix:/run/a b%c.sock:exportname=some/name',
    'nbd:unix:/run/x.sock',
    'nbd:10.0.0.1:10809',
    'nbd:[::1]:10809:exportname=e',
    'nbd://host/e',
    'nbds://host:1/e',
    'nbd+unix:///e?socket=/run/x',
    'file:///p%C3%A4th%20x',
    'repo:we%2Fb@1@20260101T000000Z/sda',
    'repo:web1@/sda',
  ]
  for (const url of forms) t.equal(await put({ url }), 200, url)
})

t.test('without an id a ticket gets a random one', async (t) => {
  const { askControl, tickets, dir } = await setUp(t)
  const ticket = { size: MIB, ops: ['read' as const], timeout: 60, url: `file://${dir}/disk` }
  const { json } = await askControl('PUT', '/tickets/x', { body: JSON.stringify(ticket) })
  const other = await tickets.add(ticket)
  t.match(json.uuid, /^[0-9a-f-]{36}$/)
  t.not(json.uuid, other)
  t.equal(tickets.show(other)?.uuid, other)
})

t.test('a ticket put again replaces the one before; all are removed at once', async (t) => {
  const { put, ask, askControl, dir } = await setUp(t)
  await put({ ops: ['write'], url: `file://${dir}/new` })
  t.equal((await ask('PUT', '/images/n3', { body: 'x'.repeat(512) })).status, 200)
  await put({ size: 512 })
  t.equal((await ask('GET', '/images/n3')).body.length, 512)
  t.notOk(existsSync(join(dir, 'new')), 'the one before was discarded')
  t.equal((await askControl('DELETE', '/tickets/')).status, 204)
  t.equal((await askControl('GET', '/tickets/n3')).status, 404)
})

t.test('one of very many tickets is found as fast as one', async (t) => {
  const { tickets, ask, dir } = await setUp(t)
  const ticket = { size: MIB, ops: ['read' as const], timeout: 60, url: `file://${dir}/disk` }
  const count = effort(30_000, 100_000)
  for (let i = 0; i < count; i++) await tickets.add({ ...ticket, uuid: `ticket-${i}` })
  t.equal((await ask('GET', '/images/ticket-7777')).status, 200)
  t.equal((await ask('GET', `/images/ticket-${count}`)).status, 403)
})

t.test('a cancelled ticket ends what is under way', async (t) => {
  const dir = t.testdir()
  qemuImg('create', '-q', '-f', 'raw', join(dir, 'large'), '8G')
  const { tickets, ticket, port } = await startImages(t)
  const id = await ticket({ url: `file://${dir}/large`, size: 8 * 2 ** 30 })
  const { connect } = await import('node:net')
  const socket = connect(port, '127.0.0.1')
  socket.write(`GET /images/${id} HTTP/1.1\r\nHost: x\r\n\r\n`)
  // It takes the beginning and no more.
  await new Promise((resolve) => socket.once('data', resolve))
  socket.pause()
  t.equal(tickets.show(id)?.active, true)
  t.equal(tickets.show(id)?.connections, 1)
  t.equal(await tickets.cancel(id), true)
  socket.resume()
  await new Promise((resolve) => socket.once('close', resolve))
  t.ok(socket.bytesRead < 2 ** 30, 'the body is short')
})
