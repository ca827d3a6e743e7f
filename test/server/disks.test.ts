/** Every kind of disk behind a ticket: content and extents, judged by QEMU's tools and by `extents`. */
import { randomBytes } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { backupMachine } from '../../lib/index.ts'
import { runCli } from '../support/cli.ts'
import { startImages } from '../support/image-server.ts'
import { qemuImg, qemuImgSame, qemuIo } from '../support/qemu.ts'
import { startQemuNbd } from '../support/qemu-nbd.ts'
import { socketDirectory, startServer } from '../support/server.ts'

const KIB = 1024
const MIB = 2 ** 20
const SIZE = 64 * MIB

t.setTimeout(300_000)

/**
 * The demand that imageio's incremental backups made of servers: written, then a bitmap, then zeroed without
 * giving up the clusters.
 */
function golden(t: Test): string {
  const image = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', image, `${SIZE}`)
  qemuIo(image, 'write -P 5 0 15M', 'write -P 6 20M 256k', 'write -P 7 30M 64k')
  qemuImg('bitmap', '--add', image, 'b0')
  qemuIo(image, 'write -z 0 15M', 'write -z 20M 256k', 'write -P 8 40M 64k')
  return image
}

const DIRTY = [
  { start: 0, length: 15 * MIB, dirty: true, zero: true },
  { start: 15 * MIB, length: 5 * MIB, dirty: false, zero: true },
  { start: 20 * MIB, length: 256 * KIB, dirty: true, zero: true },
  { start: 20 * MIB + 256 * KIB, length: 10 * MIB - 256 * KIB, dirty: false, zero: true },
  { start: 30 * MIB, length: 64 * KIB, dirty: false, zero: false },
  { start: 30 * MIB + 64 * KIB, length: 10 * MIB - 64 * KIB, dirty: false, zero: true },
  { start: 40 * MIB, length: 64 * KIB, dirty: true, zero: false },
  { start: 40 * MIB + 64 * KIB, length: 24 * MIB - 64 * KIB, dirty: false, zero: true },
]

const ZERO = [
  { start: 0, length: 15 * MIB, zero: true, hole: false },
  { start: 15 * MIB, length: 5 * MIB, zero: true, hole: true },
  { start: 20 * MIB, length: 256 * KIB, zero: true, hole: false },
  { start: 20 * MIB + 256 * KIB, length: 10 * MIB - 256 * KIB, zero: true, hole: true },
  { start: 30 * MIB, length: 64 * KIB, zero: false, hole: false },
  { start: 30 * MIB + 64 * KIB, length: 10 * MIB - 64 * KIB, zero: true, hole: true },
  { start: 40 * MIB, length: 64 * KIB, zero: false, hole: false },
  { start: 40 * MIB + 64 * KIB, length: 24 * MIB - 64 * KIB, zero: true, hole: true },
]

/** A qemu-nbd with allocation depth, as oVirt starts it. */
async function startDepthNbd(t: Test, image: string, ...args: string[]): Promise<string> {
  const directory = socketDirectory(t)
  const [socket, pid] = [join(directory, 'nbd'), join(directory, 'pid')]
  const usual = ['--persistent', '--read-only', '--allocation-depth', '--format=qcow2']
  const own = [`--socket=${socket}`, `--pid-file=${pid}`, ...args, image]
  await startServer(t, 'qemu-nbd', [...usual, ...own], pid)
  return `nbd:unix:${socket}`
}

t.test('written, bitmap, zeroed: dirty and zero together, of a file and of NBD', async (t) => {
  const image = golden(t)
  const images = await startImages(t)
  const shared = await startDepthNbd(t, image, '--shared=8', '--bitmap=b0')
  const alone = await startDepthNbd(t, image, '--shared=1', '--bitmap=b0', '--export-name=x')
  const expected = join(t.testdirName, 'raw')
  qemuImg('convert', '-O', 'raw', image, expected)
  const content = readFileSync(expected)
  for (const [url, bitmap] of [
    [`file://${image}`, undefined],
    [`file://${image}`, 'b0'],
    [shared, undefined],
    [shared, 'b0'],
    [`${alone}:exportname=x`, undefined],
  ]) {
    const id = await images.ticket({ url: url!, size: SIZE, dirty: true, bitmap })
    const extents = async (query: string) =>
      (await images.ask('GET', `/images/${id}/extents${query}`)).json
    t.strictSame(await extents('?context=dirty'), DIRTY, `${url} dirty`)
    t.strictSame(await extents('?context=zero'), ZERO, `${url} zero`)
    const part = `?context=dirty&start=${15 * MIB - 5}&length=10`
    t.strictSame(await extents(part), [
      { start: 15 * MIB - 5, length: 5, dirty: true, zero: true },
      { start: 15 * MIB, length: 5, dirty: false, zero: true },
    ])
    t.ok((await images.ask('GET', `/images/${id}`)).body.equals(content), `${url} content`)
    const [first, last] = [30 * MIB - 7, 30 * MIB + 70_001]
    const { body } = await images.ask('GET', `/images/${id}`, {
      headers: { range: `bytes=${first}-${last}` },
    })
    t.ok(body.equals(content.subarray(first, last + 1)))
    await images.tickets.cancel(id)
  }
  const ours = async (...args: string[]) =>
    JSON.parse((await runCli(['extents', image, ...args])).stdout)
  t.strictSame(await ours(), ZERO)
  t.strictSame(await ours('--bitmap', 'b0'), DIRTY)
})

t.test('the bitmap is told only where there is one, and which', async (t) => {
  const image = golden(t)
  const { ask, ticket, tickets } = await startImages(t)
  const status = async (url: string, bitmap?: string) => {
    const id = await ticket({ url, size: SIZE, dirty: true, bitmap })
    t.equal((await ask('HEAD', `/images/${id}`)).status, 200, 'the content is there all the same')
    const { status } = await ask('GET', `/images/${id}/extents?context=dirty`)
    await tickets.cancel(id)
    return status
  }
  t.equal(await status(`file://${image}`, 'other'), 404)
  qemuImg('bitmap', '--add', image, 'b1')
  t.equal(await status(`file://${image}`), 404, 'two of a file')
  t.equal(await status(`file://${image}`, 'b0'), 200)
  const two = await startDepthNbd(t, image, '--bitmap=b0', '--bitmap=b1')
  t.equal(await status(two), 404, 'two that are exported')
  t.equal(await status(two, 'b1'), 200)
  t.equal(await status(await startDepthNbd(t, image)), 404, 'none that is exported')
  const raw = join(t.testdirName, 'raw')
  qemuImg('convert', '-O', 'raw', image, raw)
  t.equal(await status(`file://${raw}`), 404)
})

t.test('without allocation depth an export has no holes', async (t) => {
  const server = await startQemuNbd(t, golden(t))
  const { ask, ticket } = await startImages(t)
  const id = await ticket({ url: server.uri, size: SIZE })
  const extents = (await ask('GET', `/images/${id}/extents`)).json
  t.strictSame(extents[0], { start: 0, length: 30 * MIB, zero: true, hole: false })
})

t.test('a writable ticket writes to an export, read back by QEMU', async (t) => {
  const dir = t.testdir()
  const [image, expected] = [join(dir, 'disk.qcow2'), join(dir, 'expected')]
  for (const shared of [1, 8]) {
    qemuImg('create', '-q', '-f', 'qcow2', image, `${8 * MIB}`)
    qemuIo(image, 'write -P 9 0 8M')
    const server = await startQemuNbd(t, image, { writable: true, shared })
    const { ask, ticket, tickets } = await startImages(t)
    const id = await ticket({ url: server.uri, size: 8 * MIB, ops: ['write'], sparse: shared > 1 })
    const disk = Buffer.alloc(8 * MIB, 9)
    const put = async (start: number, bytes: Buffer) => {
      bytes.copy(disk, start)
      const headers = { 'content-range': `bytes ${start}-*/*` }
      t.equal((await ask('PUT', `/images/${id}`, { headers, body: bytes })).status, 200)
    }
    await Promise.all([
      put(5 * MIB + 100, randomBytes(2 * MIB)),
      put(10, randomBytes(700_000)),
      put(8 * MIB - 1, Buffer.of(3)),
    ])
    disk.fill(0, MIB, 3 * MIB)
    const zero = JSON.stringify({ op: 'zero', offset: MIB, size: 2 * MIB, flush: true })
    t.equal((await ask('PATCH', `/images/${id}`, { body: zero })).status, 200)
    t.ok((await ask('GET', `/images/${id}`)).body.equals(disk))
    const extents = (await ask('GET', `/images/${id}/extents`)).json
    t.match(extents[1], { start: MIB, length: 2 * MIB, zero: true })
    t.equal(await tickets.cancel(id), true)
    await server.stop()
    writeFileSync(expected, disk)
    t.ok(qemuImgSame({ path: image, format: 'qcow2' }, { path: expected, format: 'raw' }))
  }
})

t.test('an export that is read-only cannot be written', async (t) => {
  const server = await startQemuNbd(t, golden(t))
  const { ask, ticket } = await startImages(t)
  const id = await ticket({ url: server.uri, size: SIZE, ops: ['write'] })
  t.equal((await ask('PUT', `/images/${id}`, { body: 'x' })).status, 500)
})

t.test('a point of a repository is served as it was recorded', async (t) => {
  const dir = t.testdir()
  const [disk, repository] = [join(dir, 'disk.qcow2'), join(dir, 'repo')]
  qemuImg('create', '-q', '-f', 'qcow2', disk, `${8 * MIB}`)
  qemuIo(disk, 'write -P 1 0 1M')
  const machine = `disk:v/da=${disk}`
  for (const checkpoint of ['p1', 'p2']) {
    await backupMachine(machine, repository, { name: 'we/b@1', checkpoint })
    qemuIo(disk, 'write -P 2 512k 1M')
  }
  const { ask, ticket } = await startImages(t, { repository })
  const bytesOf = async (point: string) => {
    const url = `repo:we%2Fb@1@${point}/v%2Fda`
    const answer = await ask('GET', `/images/${await ticket({ url, size: 8 * MIB })}`)
    return [answer.status, answer.body[0], answer.body[MIB]]
  }
  t.strictSame(await bytesOf('p1'), [200, 1, 0])
  t.strictSame(await bytesOf('p2'), [200, 1, 2])
  t.strictSame(await bytesOf(''), [200, 1, 2], 'the latest')
  t.equal((await bytesOf('p3'))[0], 400)
  const other = await startImages(t)
  const id = await other.ticket({ url: 'repo:we%2Fb@1@p1/v%2Fda', size: MIB })
  t.equal((await other.ask('GET', `/images/${id}`)).status, 400, 'no repository is served')
})
