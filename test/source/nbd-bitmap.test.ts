import { join } from 'node:path'
import t, { type Test } from 'tap'
import { fullBackup } from '../../lib/backup/full.ts'
import { openSource } from '../../lib/source/open-source.ts'
import { markedOf } from '../support/dirty-mappings.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { nbdinfoMap } from '../support/nbdinfo.ts'
import { startNbdkit } from '../support/nbdkit.ts'
import { peek, peek64, poke } from '../support/patch.ts'
import { qemuImg, qemuIo } from '../support/qemu.ts'
import { startQemuNbd } from '../support/qemu-nbd.ts'
import { type StorageDaemon, startStorageDaemon } from '../support/storage-daemon.ts'

/** A disk of 16 MiB with data in its first MiB. */
function makeDisk(t: Test): string {
  const disk = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', disk, '16M')
  qemuIo(disk, 'write -P 1 0 1M')
  return disk
}

t.test('a guest writes, zeroes and trims: qemu-storage-daemon', async (t) => {
  const daemon = await startStorageDaemon(t)
  await daemon.open('disk', makeDisk(t))
  await daemon.addBitmap('disk', 'since')
  const guest = await daemon.export('disk', { name: 'guest', writable: true })
  qemuIo(
    { path: guest, format: 'raw' },
    ...['write -P 2 64k 64k', 'write -z -n 256k 64k', 'discard 512k 64k'],
    ...['write -P 3 4M 64k', 'write -z -u 8M 128k'],
  )
  const uri = await daemon.export('disk', { bitmaps: [{ node: 'disk', name: 'since' }] })
  const source = await openSource(uri, { bitmap: 'since' })
  t.teardown(() => source.close())
  t.strictSame(source.bitmap, { name: 'since', notes: [] })
  const expected = [
    '0K +64K data',
    '64K +64K dirty data',
    '128K +128K data',
    '256K +64K dirty hole',
    '320K +192K data',
    '512K +64K dirty hole',
    '576K +448K data',
    '1024K +3072K hole',
    '4096K +64K dirty data',
    '4160K +4032K hole',
    '8192K +128K dirty hole',
    '8320K +8064K hole',
  ]
  t.strictSame(await markedOf(source), expected)
  t.strictSame(await markedOf(source), expected, 'it can be asked twice')
  t.strictSame(
    await Promise.all([markedOf(source), markedOf(source)]),
    [expected, expected],
    'even at once',
  )
})

t.test('persistent bitmaps, in granules of each size: qemu-nbd', async (t) => {
  for (const granularity of [512, 4096, 65536, 2 ** 20, 2 ** 31]) {
    await t.test(`${granularity} bytes`, async (t) => {
      const disk = makeDisk(t)
      qemuImg('bitmap', '--add', '-g', String(granularity), disk, 'b')
      qemuIo(disk, 'write -P 5 3M 512')
      const { uri } = await startQemuNbd(t, disk, { bitmaps: ['b'] })
      const source = await openSource(uri, { bitmap: 'b' })
      t.teardown(() => source.close())
      const start = 3072 - (3072 % (granularity / 1024))
      const length = Math.min(granularity / 1024, 16384 - start)
      const dirty = (await markedOf(source)).filter((line) => line.includes('dirty'))
      t.ok(dirty[0].startsWith(`${start}K +`))
      const lengths = dirty.map((line) => Number(/\+([\d.]+)K/.exec(line)?.[1]))
      t.equal(
        lengths.reduce((sum, n) => sum + n),
        length,
      )
    })
  }
})

t.test('a million granules, every other dirty, are read in bounds', async (t) => {
  const disk = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', disk, '1G')
  qemuImg('bitmap', '--add', '-g', '512', disk, 'b')
  // Lets QEMU make the bitmap's four clusters, each for 256 MiB; then fills them with a pattern.
  qemuIo(disk, ...[0, 256, 512, 768].map((at) => `write -P 5 ${at}M 512`))
  const extension = peek(disk, 0, 65536).indexOf('23852875', 104, 'hex')
  const directory = Number(peek64(disk, extension + 24))
  const table = Number(peek64(disk, directory))
  for (const i of [0, 1, 2, 3]) {
    poke(disk, Number(peek64(disk, table + i * 8)), Buffer.alloc(65536, 0x55))
  }
  const { uri } = await startQemuNbd(t, disk, { bitmaps: ['b'] })
  const source = await openSource(uri, { bitmap: 'b' })
  t.teardown(() => source.close())
  const started = process.cpuUsage()
  let mappings = 0
  let position = 0
  let dirty = 0
  let most = 0
  for await (const batch of source.dirtyMappings()) {
    most = Math.max(most, batch.length)
    for (const mapping of batch) {
      mappings++
      position += mapping.length
      if (mapping.dirty) dirty += mapping.length
    }
  }
  const { user, system } = process.cpuUsage(started)
  t.comment(`${mappings} mappings in ${(user + system) / 1e6} s of CPU`)
  t.equal(position, 2 ** 30)
  t.equal(dirty, 2 ** 29)
  t.ok(mappings >= 2 ** 21, 'one to a granule')
  t.ok(most <= 8192)
})

t.test('a bitmap that is not exported, or that no server could have', async (t) => {
  const disk = makeDisk(t)
  qemuImg('bitmap', '--add', disk, 'b')
  const { uri } = await startQemuNbd(t, disk)
  const why =
    "does not export bitmap 'b'; the server must be told to: block-export-add with bitmaps, or " +
    'qemu-nbd --bitmap'
  await t.rejects(openSource(uri, { bitmap: 'b' }), { code: 'BAD_BITMAP', what: uri, why })
  const nbdkit = await startNbdkit(t, '--no-sr', 'memory', '1M')
  await t.rejects(openSource(nbdkit.uri(), { bitmap: 'b' }), { code: 'BAD_BITMAP', why })
  const nameless = { code: 'USAGE', message: 'bitmap: the name is empty' }
  await t.rejects(openSource(uri, { bitmap: '' }), nameless)
})

/** Puts a copy-before-write snapshot of a node between it and its next export. */
async function snapshot(daemon: StorageDaemon, scratch: string, bitmap?: string): Promise<void> {
  await daemon.open('scratch', makeRaw(scratch, 16 * 2 ** 20, []), 'raw')
  await daemon.qmp('blockdev-add', {
    driver: 'copy-before-write',
    'node-name': 'cbw',
    file: 'disk',
    target: 'scratch',
    bitmap: bitmap && { node: 'disk', name: bitmap },
  })
  await daemon.qmp('blockdev-add', { driver: 'snapshot-access', 'node-name': 'snap', file: 'cbw' })
}

for (const [name, first] of [
  ['clean first', []],
  ['dirty first', ['write -P 9 0 64k']],
] as const) {
  t.test(`a snapshot limited to a bitmap has no status where it is clean: ${name}`, async (t) => {
    const daemon = await startStorageDaemon(t)
    await daemon.open('disk', makeDisk(t))
    await daemon.addBitmap('disk', 'since')
    const guest = await daemon.export('disk', { name: 'guest', writable: true })
    const writes = ['write -P 2 128k 64k', 'write -z 4M 1M', 'write -P 3 6M 64k']
    qemuIo({ path: guest, format: 'raw' }, ...first, ...writes)
    await daemon.unexport('guest')
    await daemon.qmp('block-dirty-bitmap-disable', { node: 'disk', name: 'since' })
    await snapshot(daemon, join(t.testdir(), 'scratch'), 'since')
    const uri = await daemon.export('snap', { bitmaps: [{ node: 'disk', name: 'since' }] })

    const source = await openSource(uri, { bitmap: 'since' })
    t.teardown(() => source.close())
    const expected = [
      ...(first.length > 0 ? ['0K +64K dirty data', '64K +64K data'] : ['0K +128K data']),
      '128K +64K dirty data',
      '192K +3904K data',
      '4096K +1024K dirty hole',
      '5120K +1024K data',
      '6144K +64K dirty data',
      '6208K +10176K data',
    ]
    t.strictSame(await markedOf(source), expected)
    t.strictSame(await markedOf(source), expected, 'again, though the connection is broken')

    const whole = await openSource(uri)
    t.teardown(() => whole.close())
    await markedOf(whole)
    t.match(whole.notes, [/block status of .*Invalid/], 'without a bitmap it does not tell')
    const copied = fullBackup(uri, join(t.testdir(), 'whole.qcow2'), { retries: 0 })
    await t.rejects(copied, { code: 'IO', what: uri, why: /^read at/ }, 'and cannot be read')
  })
}

t.test('data of a backing file is a hole in a snapshot, but no zero', async (t) => {
  const directory = t.testdir()
  const base = join(directory, 'base.raw')
  makeRaw(base, 16 * 2 ** 20, [{ at: 2 ** 20, bytes: noise(2 ** 20) }])
  const disk = join(directory, 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', disk)
  const daemon = await startStorageDaemon(t)
  await daemon.open('disk', disk)
  await daemon.addBitmap('disk', 'since')
  await snapshot(daemon, join(directory, 'scratch'))
  const uri = await daemon.export('snap', { bitmaps: [{ node: 'disk', name: 'since' }] })
  t.ok(
    nbdinfoMap(uri).some(({ offset, length, type }) => {
      return type === 1 && offset <= 2 ** 20 && offset + length >= 2 ** 21
    }),
    'the server says HOLE of it, and no more',
  )
  for (const bitmap of [undefined, 'since']) {
    const source = await openSource(uri, { bitmap })
    t.teardown(() => source.close())
    t.strictSame(await markedOf(source), ['0K +16384K data'])
  }
})
