import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { FreezeOptions, Machine } from '../../../lib/machine/machine.ts'
import { openQmpMachine } from '../../../lib/machine/qmp/open.ts'
import { qemuImg, qemuImgMap, qemuIo } from '../../support/qemu.ts'
import {
  backUp,
  leftBy,
  makeImage,
  newRun,
  readByNbdcopy,
  requireSame,
} from '../../support/qmp-point.ts'
import { unixUri } from '../../support/server.ts'
import { type StorageDaemon, startStorageDaemon } from '../../support/storage-daemon.ts'

interface TestMachine {
  directory: string
  daemon: StorageDaemon
  machine: Machine
}

async function startDisk(t: Test, ...options: string[]): Promise<TestMachine> {
  const directory = t.testdir()
  const daemon = await startStorageDaemon(t)
  const image = makeImage(join(directory, 'disk.qcow2'), '8M', ...options)
  qemuIo(image, 'write -P 1 0 4M')
  await daemon.open('disk', image)
  await daemon.export('disk', { name: 'guest', writable: true })
  return { directory, daemon, machine: await openMachine(t, daemon) }
}

async function openMachine(t: Test, daemon: StorageDaemon): Promise<Machine> {
  const machine = await openQmpMachine(daemon.monitor, { nbdServer: unixUri(daemon.socket) })
  t.teardown(() => machine.close())
  return machine
}

/** The guest's writes, through the export that has been there from the start. */
function write(daemon: StorageDaemon, ...commands: string[]): void {
  qemuIo({ path: unixUri(daemon.socket, 'guest'), format: 'raw' }, ...commands)
}

type Freeze = Partial<FreezeOptions> & { since?: string; checkpoint?: string; name?: string }

async function freeze(machine: Machine, { since, checkpoint, name = 'disk', ...how }: Freeze) {
  return await machine.freeze({
    ...{ disks: [{ name, since, checkpoint }], run: newRun(), point: 'p' },
    ...how,
  })
}

/** A backup that is stored. */
async function store(
  t: Test,
  { directory, machine }: TestMachine,
  how: Freeze & { remove?: string[]; backing?: string; target: string },
): Promise<string> {
  const { remove = [], backing, target, ...rest } = how
  const point = await freeze(machine, rest)
  const [disk] = point.disks
  const path = await backUp(disk, join(directory, target), backing && join(directory, backing))
  requireSame(t, path, readByNbdcopy(disk, join(directory, 'point.raw')))
  t.strictSame(await point.succeed({ remove }), [])
  return path
}

/** A node for an image over the disk's, to be inserted above it. */
async function addOverlay({ directory, daemon }: TestMachine): Promise<void> {
  const overlay = join(directory, 'overlay.qcow2')
  const backing = ['-b', join(directory, 'disk.qcow2'), '-F', 'qcow2', '-u']
  qemuImg('create', '-q', '-f', 'qcow2', ...backing, overlay, '8M')
  const file = { driver: 'file', filename: overlay }
  const node = { driver: 'qcow2', 'node-name': 'overlay', backing: null, file }
  await daemon.qmp('blockdev-add', node)
}

t.test('an external snapshot that carries the bitmap on, as libvirt makes it', async (t) => {
  const running = await startDisk(t)
  const { daemon, machine } = running
  await store(t, running, { checkpoint: 'p0', target: '0' })
  write(daemon, 'write -P 2 1M 64k')
  await addOverlay(running)
  const bitmap = { node: 'overlay', name: 'p0', persistent: true, granularity: 65536 }
  await daemon.qmp('transaction', {
    actions: [
      { type: 'blockdev-snapshot', data: { node: 'disk', overlay: 'overlay' } },
      { type: 'block-dirty-bitmap-add', data: bitmap },
    ],
  })
  write(daemon, 'write -P 3 2M 64k')
  t.match(await machine.disks(), [
    { name: 'overlay', node: 'overlay', bitmaps: [{ name: 'p0', valid: true, images: [{}, {}] }] },
  ])
  const how = { name: 'overlay', since: 'p0', checkpoint: 'p1', target: '1', backing: '0' }
  const image = await store(t, running, how)
  const dirty = qemuImgMap(image)
  const own = dirty.filter(({ depth, data }) => depth === 0 && data)
  t.strictSame(
    own.map(({ start, length }) => [start, length]),
    [
      [2 ** 20, 65536],
      [2 * 2 ** 20, 65536],
    ],
    'what was written to either image, and no more',
  )
})

t.test('an external snapshot that ends the chain of bitmaps', async (t) => {
  const running = await startDisk(t)
  const { daemon, machine } = running
  await store(t, running, { checkpoint: 'p0', target: '0' })
  await addOverlay(running)
  await daemon.qmp('blockdev-snapshot', { node: 'disk', overlay: 'overlay' })
  const [{ bitmaps }] = await machine.disks()
  t.match(bitmaps, [{ name: 'p0', valid: false }])
  const refused = freeze(machine, { name: 'overlay', since: 'p0' })
  await t.rejects(refused, { code: 'BAD_BITMAP', why: bitmaps[0].reasons.join('; ') })
  t.strictSame(await machine.leftovers(), [])
})

t.test('a backup that fails leaves its changes to the next', async (t) => {
  const running = await startDisk(t)
  const { directory, daemon, machine } = running
  await store(t, running, { checkpoint: 'p0', target: '0' })
  write(daemon, 'write -P 2 1M 64k')
  const point = await freeze(machine, { since: 'p0', checkpoint: 'p1' })
  write(daemon, 'write -P 3 2M 64k')
  t.strictSame(await point.fail(), [])
  t.strictSame(await point.fail(), [])
  t.match(await machine.disks(), [{ bitmaps: [{ name: 'p0', valid: true }] }])
  write(daemon, 'write -P 4 3M 64k')
  await store(t, running, {
    since: 'p0',
    checkpoint: 'p1',
    target: '1',
    backing: '0',
    remove: ['p0'],
  })
  t.match(await machine.disks(), [{ bitmaps: [{ name: 'p1', valid: true }] }])
  qemuIo(join(directory, '1'), 'read -P 2 1M 64k', 'read -P 3 2M 64k', 'read -P 4 3M 64k')
})

t.test('a daemon that is restarted after the client was killed', async (t) => {
  const running = await startDisk(t)
  const { directory, daemon, machine } = running
  await store(t, running, { checkpoint: 'p0', target: '0' })
  // What a killed client leaves: its exports and jobs end with the daemon.
  const run = newRun()
  const node = 'disk'
  const name = `qcow2-backup-${run}-new-p1`
  await daemon.qmp('block-dirty-bitmap-add', { node, name, persistent: true })
  write(daemon, 'write -P 2 1M 64k')
  await machine.close()
  await daemon.qmp('quit')
  await daemon.stop()
  const restarted = await startStorageDaemon(t)
  await restarted.open('disk', join(directory, 'disk.qcow2'))
  const again = await openMachine(t, restarted)
  const leftover = { kind: 'bitmap', name, run, disk: 'disk' }
  t.strictSame(await again.leftovers(), [leftover])
  t.strictSame(await again.clean({ isStored: () => true }), [leftover])
  t.match(
    await again.disks(),
    [{ bitmaps: [{ name: 'p0', valid: true }, { name: 'p1' }] }].map(() => ({})),
  )
  const [{ bitmaps }] = await again.disks()
  t.strictSame(
    bitmaps.map((bitmap) => [bitmap.name, bitmap.valid]).sort(),
    [
      ['p0', true],
      ['p1', true],
    ],
    'the backup was stored, so its checkpoint stays',
  )
  const next = { directory, daemon: restarted, machine: again }
  await store(t, next, { since: 'p0', target: '1', backing: '0' })
  t.strictSame(await leftBy(restarted.qmp, run, directory), [])
})

t.test('a disk that was resized since the last backup', async (t) => {
  const running = await startDisk(t)
  const { daemon, machine } = running
  await store(t, running, { checkpoint: 'p0', target: '0' })
  await daemon.unexport('guest')
  await daemon.qmp('block_resize', { 'node-name': 'disk', size: 16 * 2 ** 20 })
  await daemon.export('disk', { name: 'guest', writable: true })
  write(daemon, 'write -P 5 12M 64k')
  const [{ virtualSize, bitmaps }] = await machine.disks()
  t.equal(virtualSize, 16 * 2 ** 20)
  t.match(bitmaps, [{ name: 'p0', valid: true }])
  await store(t, running, { since: 'p0', checkpoint: 'p1', target: '1', backing: '0' })
})
