import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  backupMachine,
  diffDisks,
  diffToBitmap,
  fullBackup,
  incrementalBackup,
  openSource,
  readBitmapChain,
  restore,
} from '../../lib/index.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { type DaemonExtent, json, startImageioDaemon, TICKET } from '../support/imageio-daemon.ts'
import { qemuImg, qemuImgCheck, qemuImgSame } from '../support/qemu.ts'
import { startQemuNbd } from '../support/qemu-nbd.ts'

const MIB = 2 ** 20
const SIZE = 24 * MIB

/** Noise with a zero in it that no extent tells of, and a hole. */
function content() {
  const bytes = Buffer.alloc(SIZE)
  noise(9 * MIB).copy(bytes)
  noise(3 * MIB + 512).copy(bytes, 16 * MIB)
  bytes.fill(0, 4 * MIB, 5 * MIB)
  const zero: DaemonExtent[] = [
    { start: 0, length: 9 * MIB, zero: false, hole: false },
    { start: 9 * MIB, length: 3 * MIB, zero: true, hole: false },
    { start: 12 * MIB, length: 4 * MIB, zero: true, hole: true },
    { start: 16 * MIB, length: 4 * MIB, zero: false, hole: false },
    { start: 20 * MIB, length: 4 * MIB, zero: true, hole: true },
  ]
  return { bytes, zero }
}

t.test('a full backup is that of the same disk from qemu-nbd', async (t) => {
  const directory = t.testdir()
  const at = (name: string) => join(directory, name)
  const { bytes, zero } = content()
  const disk = makeRaw(at('disk.raw'), SIZE, [{ at: 0, bytes }])
  const daemon = await startImageioDaemon(t, { bytes, zero })
  const result = await fullBackup(daemon.url, at('http.qcow2'))
  t.match(result, { virtualSize: SIZE, dataBytes: 11 * MIB + 65536, unchangedBytes: 0 })
  t.equal(result.notes, undefined)
  const { uri } = await startQemuNbd(t, disk, { format: 'raw' })
  await fullBackup(uri, at('nbd.qcow2'))
  t.ok(readFileSync(at('http.qcow2')).equals(readFileSync(at('nbd.qcow2'))))
  t.equal(qemuImgCheck(at('http.qcow2')).status, 0)
  t.ok(qemuImgSame({ path: at('http.qcow2'), format: 'qcow2' }, { path: disk, format: 'raw' }))
  t.ok(daemon.connections() <= 5, 'one to look, four to read')
  t.strictSame(daemon.requests.slice(0, 3), [
    'OPTIONS ',
    'GET bytes=0-0',
    `GET bytes=${SIZE - 1}-${SIZE - 1}`,
  ])
  t.equal(daemon.requests.filter((one) => one.includes('extents')).length, 1)
})

t.test('an incremental backup has what is dirty, as zero what is zero too', async (t) => {
  const directory = t.testdir()
  const at = (name: string) => join(directory, name)
  const { bytes, zero } = content()
  const full = await startImageioDaemon(t, { bytes, zero })
  await fullBackup(full.url, at('full.qcow2'))
  noise(MIB).copy(bytes, 2 * MIB)
  bytes.fill(0, 6 * MIB, 7 * MIB)
  const dirty: DaemonExtent[] = [
    { start: 0, length: 2 * MIB, dirty: false, zero: false },
    // As servers before 2.2 answer: no word of zeroes.
    { start: 2 * MIB, length: MIB, dirty: true },
    { start: 3 * MIB, length: 3 * MIB, dirty: false, zero: false },
    { start: 6 * MIB, length: MIB, dirty: true, zero: true },
    { start: 7 * MIB, length: 17 * MIB, dirty: false, zero: true },
  ]
  const daemon = await startImageioDaemon(t, { bytes, dirty })
  const backing = at('full.qcow2')
  const result = await incrementalBackup(daemon.url, at('1.qcow2'), { backing })
  t.match(result, { dataBytes: MIB, zeroBytes: MIB, unchangedBytes: SIZE - 2 * MIB })
  const ranges = daemon.requests.flatMap((one) => /bytes=(\d+)-(\d+)/.exec(one)?.slice(1) ?? [])
  for (let i = 0; i < ranges.length; i += 2) {
    const [start, last] = ranges.slice(i, i + 2).map(Number)
    // A byte is asked for to learn the size.
    if (start < last) t.ok(start >= 2 * MIB && last < 3 * MIB, 'nothing else is read')
  }
  await restore(at('1.qcow2'), at('restored.raw'))
  t.ok(readFileSync(at('restored.raw')).equals(bytes))
  t.equal(qemuImg('info', '--output=json', at('1.qcow2')).includes('"full.qcow2"'), true)

  const source = await openSource(daemon.url, { bitmap: 'any' })
  const marks: unknown[] = []
  for await (const batch of source.dirtyMappings()) {
    for (const { start, length, kind, dirty } of batch) marks.push([start, length, kind, dirty])
  }
  t.strictSame(marks.slice(1, 4), [
    [2 * MIB, MIB, 'data', true],
    [3 * MIB, 3 * MIB, 'data', false],
    [6 * MIB, MIB, 'zero', true],
  ])
  await source.close()

  const none = await startImageioDaemon(t, { bytes })
  await t.rejects(incrementalBackup(none.url, at('2.qcow2'), { backing }), {
    code: 'BAD_BITMAP',
    why: /gives no dirty bitmap.*full backup/,
  })
})

t.test('a server that knows only GET and PUT', async (t) => {
  const directory = t.testdir()
  const { bytes } = content()
  for (const status of [405, 204]) {
    const daemon = await startImageioDaemon(t, { bytes, options: status })
    const target = join(directory, `${status}.qcow2`)
    const result = await fullBackup(daemon.url, target)
    t.match(result.notes, [/does not tell where data is/])
    t.equal(result.dataBytes, 11 * MIB + 65536, 'zeroes are found by reading')
    t.ok(daemon.connections() <= 2, 'it gets one connection, after the first')
    await t.rejects(openSource(daemon.url, { bitmap: 'any' }), { code: 'BAD_BITMAP' })
  }
})

t.test('the size is that of the ticket or of the image, whichever is smaller', async (t) => {
  const bytes = noise(MIB + 100)
  for (const ticketSize of [undefined, 2 * MIB]) {
    const { url } = await startImageioDaemon(t, { bytes, ticketSize })
    const source = await openSource(url)
    t.equal(source.size, MIB + 512, 'in whole sectors')
    await source.checkUnchanged()
    const extents = []
    for await (const extent of source.extents()) extents.push(extent)
    t.strictSame(extents, [{ start: 0, length: MIB + 512, zero: false, hole: false }])
    await source.close()
  }
  const small = await startImageioDaemon(t, { bytes, ticketSize: MIB })
  await t.rejects(fullBackup(small.url, join(t.testdir(), 'target')), {
    code: 'IO',
    why: /cannot read the extents: the extent at 0 goes beyond the disk, which ends at 1048576/,
  })
  const empty = await startImageioDaemon(t, { bytes: Buffer.alloc(0) })
  const source = await openSource(empty.url)
  t.equal(source.size, 0)
  await source.close()
  const unknown = await startImageioDaemon(t, {
    bytes: noise(4096),
    instead(request, response) {
      if (request.headers.range !== 'bytes=0-0') return false
      response.writeHead(206, { 'content-length': 1, 'content-range': 'bytes 0-0/*' }).end('x')
      return true
    },
  })
  const told = await openSource(unknown.url)
  t.equal(told.size, 4096, 'from the length of all of it')
  await told.close()
})

t.test('one connection does for the extents and the data', async (t) => {
  const directory = t.testdir()
  const { bytes, zero } = content()
  const daemon = await startImageioDaemon(t, { bytes, zero, maxReaders: 1 })
  const result = await fullBackup(daemon.url, join(directory, 'one.qcow2'))
  t.equal(result.dataBytes, 11 * MIB + 65536)
  t.ok(daemon.connections() <= 2)
})

t.test('a Unix socket, also an abstract one', async (t) => {
  const bytes = noise(MIB)
  const path = `\0qcow2-backup-test-${process.pid}`
  const daemon = await startImageioDaemon(t, { bytes, path })
  for (const url of [daemon.url, daemon.url.replace('%00', '@')]) {
    const source = await openSource(url)
    t.equal(source.size, MIB)
    await source.close()
  }
  const over = await startImageioDaemon(t, {
    bytes,
    options: { features: ['extents'], max_readers: 8, unix_socket: path },
  })
  const before = daemon.requests.length
  await fullBackup(over.url, join(t.testdir(), 'local.qcow2'))
  t.strictSame(over.requests, ['OPTIONS '], 'nothing more goes over TCP on the same host')
  t.ok(daemon.requests.length > before + 2)
  const gone = await startImageioDaemon(t, {
    bytes,
    options: { features: ['extents'], unix_socket: '/no/such/socket' },
  })
  const source = await openSource(gone.url)
  t.equal(source.size, MIB, 'one that cannot be reached is left alone')
  await source.close()
})

t.test('near-by pieces are asked for together, and each is put where it belongs', async (t) => {
  const directory = t.testdir()
  const at = (name: string) => join(directory, name)
  const granule = 4096
  const bytes = noise(8 * MIB)
  const dirty = Array.from({ length: bytes.length / granule }, (_, i) => {
    return { start: i * granule, length: granule, dirty: i % 4 === 0, zero: false }
  })
  const backing = makeRaw(at('full.raw'), bytes.length, [])
  const daemon = await startImageioDaemon(t, { bytes, dirty })
  const options = { backing, backingFormat: 'raw', clusterSize: granule } as const
  const result = await incrementalBackup(daemon.url, at('1.qcow2'), options)
  t.equal(result.dataBytes, 2 * MIB)
  const asked = daemon.requests.filter((one) => one.includes('bytes=')).length
  t.ok(asked <= 128, `${asked} requests for 512 pieces`)
  await restore(at('1.qcow2'), at('restored.raw'), { allowPaths: ['/'] })
  const expected = Buffer.alloc(bytes.length)
  for (const { start, length, dirty: isDirty } of dirty) {
    if (isDirty) bytes.copy(expected, start, start, start + length)
  }
  t.ok(readFileSync(at('restored.raw')).equals(expected))
})

t.test('verifying asks the server for its hash', async (t) => {
  const directory = t.testdir()
  const at = (name: string) => join(directory, name)
  const { bytes, zero } = content()
  const disk = makeRaw(at('disk.raw'), SIZE, [{ at: 0, bytes }])
  const { content: hash } = await fullBackup(disk, at('file.qcow2'), { manifest: true })
  const asked: string[] = []
  const answering = (checksum: string) =>
    startImageioDaemon(t, {
      bytes,
      zero,
      instead({ url = '' }, response) {
        if (!url.includes('/checksum')) return false
        asked.push(url.split('?')[1])
        json(response, { algorithm: 'blake2b', block_size: 4 * MIB, checksum })
        return true
      },
    })
  const right = await answering(hash!.checksum)
  const result = await fullBackup(right.url, at('right.qcow2'), { verify: true })
  t.equal(result.verified, true)
  t.strictSame(asked, [`algorithm=blake2b&block_size=${4 * MIB}`])
  const wrong = await answering('0'.repeat(64))
  await t.rejects(fullBackup(wrong.url, at('wrong.qcow2'), { verify: true }), {
    code: 'DIFFERENT',
    why: /the server has other data than was read: its checksum is 000/,
  })
  t.notOk(existsSync(at('wrong.qcow2')))
  const absurd = await answering('<html>')
  await t.rejects(fullBackup(absurd.url, at('wrong.qcow2'), { verify: true }), {
    code: 'IO',
    why: /cannot get the server's checksum: the checksum is not one of 32 bytes/,
  })
  const none = await startImageioDaemon(t, { bytes, zero, features: ['extents'] })
  await fullBackup(none.url, at('none.qcow2'), { verify: true })
  t.notOk(none.requests.some((one) => one.includes('checksum')))
})

t.test('a read that is no longer wanted ends', async (t) => {
  const stop = new AbortController()
  let onClosed = () => {}
  const closed = new Promise<void>((resolve) => {
    onClosed = resolve
  })
  const daemon = await startImageioDaemon(t, {
    bytes: noise(MIB),
    instead(request, response) {
      const [first, last] = request.headers.range?.match(/\d+/g) ?? []
      if (first === last) return false
      response.on('close', onClosed)
      stop.abort(new Error('enough'))
      return true
    },
  })
  const copy = fullBackup(daemon.url, join(t.testdir(), 'out'), { signal: stop.signal })
  await t.rejects(copy, { code: 'ABORTED', cause: { message: 'enough' } })
  await closed
})

t.test('the ticket is a secret', async (t) => {
  const { port, url } = await startImageioDaemon(t, { bytes: noise(4096) })
  const source = await openSource(url)
  t.equal(source.name, `http://127.0.0.1:${port}/images/3a7c9d10…`)
  t.notMatch(JSON.stringify(source.stores), TICKET)
  await source.close()
  // Whatever a function takes it for.
  for (const wrongly of [
    () => readBitmapChain(url),
    () => diffDisks(url, url, { output: 'no' }),
    () => diffToBitmap(url, url, 'bitmap'),
    () => backupMachine(`disk:vda=${url}`, 'no', { name: 'web1' }),
    () => fullBackup('no', url),
  ]) {
    const error: unknown = await wrongly().catch((error: unknown) => error)
    t.match(error, { name: 'BackupError' })
    t.notMatch(`${(error as Error).stack} ${JSON.stringify(error)}`, TICKET)
  }
  const wrong = url.replace(TICKET, '99999999-aaaa-bbbb-cccc-dddddddddddd')
  await t.rejects(openSource(wrong), {
    code: 'IO',
    what: `http://127.0.0.1:${port}/images/99999999…`,
    why: /does not accept the ticket \(403\)/,
  })
})
