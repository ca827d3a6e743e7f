import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { FreezeOptions, Machine, PointInTime } from '../../../lib/machine/machine.ts'
import { openQmpMachine } from '../../../lib/machine/qmp/open.ts'
import { qemuImg, qemuIo } from '../../support/qemu.ts'
import { diskArguments, type QemuSystem, startQemuSystem } from '../../support/qemu-system.ts'
import {
  backUp,
  leftBy,
  makeImage,
  newRun,
  readByNbdcopy,
  requireSame,
} from '../../support/qmp-point.ts'

interface TestMachine {
  directory: string
  qemu: QemuSystem
  machine: Machine
}

/** Two qcow2 disks, a raw one, and things that are no disks. */
async function startMachine(t: Test, thread = ''): Promise<TestMachine> {
  const directory = t.testdir()
  const path = (name: string) => join(directory, name)
  for (const name of ['a', 'b']) {
    qemuIo(makeImage(path(`${name}.qcow2`), '8M'), 'write -P 1 0 4M')
  }
  for (const name of ['c.raw', 'cd.iso']) qemuImg('create', '-q', '-f', 'raw', path(name), '4M')
  qemuIo({ path: path('c.raw'), format: 'raw' }, 'write -P 1 0 4M')
  const qemu = await startQemuSystem(t, [
    ...['-name', 'web 1', '-object', 'iothread,id=io', '-device', 'virtio-scsi-pci,id=scsi'],
    ...diskArguments('a', path('a.qcow2'), { device: `virtio-blk-pci${thread}` }),
    ...diskArguments('b', path('b.qcow2'), { device: 'scsi-hd,bus=scsi.0' }),
    ...['-drive', `if=virtio,id=legacy,format=raw,file=${path('c.raw')}`],
    ...['-drive', `if=none,id=cd,media=cdrom,format=raw,file=${path('cd.iso')}`],
    ...['-device', 'scsi-cd,bus=scsi.0,drive=cd', '-device', 'scsi-cd,bus=scsi.0'],
  ])
  const machine = await openQmpMachine(qemu.monitor)
  t.teardown(() => machine.close())
  return { directory, qemu, machine }
}

t.test('the disks of a machine', async (t) => {
  const { directory, machine } = await startMachine(t)
  t.equal(machine.name, 'web 1')
  const possible = { possible: true }
  const reason = 'a raw disk cannot hold a bitmap'
  t.match(await machine.disks(), [
    {
      ...{ name: 'legacy', path: join(directory, 'c.raw'), format: 'raw' },
      ...{ virtualSize: 4 * 2 ** 20, bitmaps: [] },
      ...{ full: possible, incremental: { possible: false, reason } },
    },
    {
      ...{ name: 'dev-a', node: 'a', path: join(directory, 'a.qcow2'), format: 'qcow2' },
      ...{ virtualSize: 8 * 2 ** 20, full: possible, incremental: possible },
    },
    { name: 'dev-b', node: 'b', path: join(directory, 'b.qcow2'), format: 'qcow2' },
  ])
})

/** Full, then incremental backups while the devices are written to. */
async function rounds(
  t: Test,
  { directory, qemu, machine }: TestMachine,
  how: Partial<FreezeOptions>,
): Promise<void> {
  const names = how.disks?.map(({ name }) => name) ?? ['dev-a', 'dev-b', 'legacy']
  const before = await qemu.qmp('query-block')
  for (let round = 0; round < 3; round++) {
    for (const name of names) await qemu.io(name, `write -P ${round + 10} ${round}M 100k`)
    const run = newRun()
    const point = await machine.freeze({
      run,
      point: 'p',
      ...how,
      disks: names.map((name) => {
        if (name === 'legacy') return { name }
        return { name, checkpoint: `p${round}`, since: round > 0 ? `p${round - 1}` : undefined }
      }),
    })
    t.equal(await qemu.status(), 'running')
    for (const name of names) await qemu.io(name, 'write -P 99 1M 1M')
    await backUpAll(t, directory, point, round)
    t.strictSame(await point.succeed({ remove: [`p${round - 1}`] }), [])
    t.strictSame(await leftBy(qemu.qmp, run, directory), [])
  }
  t.same(withoutBitmaps(await qemu.qmp('query-block')), withoutBitmaps(before))
}

/** What a disk had at the instant is not what it has now, so the comparison can fail. */
async function backUpAll(t: Test, directory: string, point: PointInTime, round: number) {
  for (const disk of point.disks) {
    const path = (r: number) => join(directory, `${disk.name}.${r}.backup`)
    const isFirst = round === 0 || disk.open.bitmap === undefined
    await backUp(disk, path(round), isFirst ? undefined : path(round - 1))
    requireSame(t, path(round), readByNbdcopy(disk, join(directory, 'point.raw')))
    t.ok(await disk.scratchBytes?.())
    t.match(await disk.heldRanges?.(), [{ start: 2 ** 20, length: 2 ** 20 }])
  }
}

/** How devices are attached, without what counts writes. */
function withoutBitmaps(devices: unknown): unknown {
  return (devices as { qdev?: string; inserted?: { 'node-name': string } }[]).map(
    ({ qdev, inserted }) => [qdev, inserted?.['node-name']],
  )
}

t.test('all disks at one instant, as this QEMU does it by default', async (t) => {
  const running = await startMachine(t)
  await rounds(t, running, {})
})

t.test('all disks at one instant, by jobs', async (t) => {
  await rounds(t, await startMachine(t), { recipe: 'job' })
})

t.test('all disks at one instant, by filters', async (t) => {
  await rounds(t, await startMachine(t), { recipe: 'filter', cbwTimeout: 4 })
})

t.test('one disk by a filter, without stopping the guest', async (t) => {
  const running = await startMachine(t)
  const stopped = running.qemu.client.events({ names: ['STOP'] })
  await rounds(t, running, { recipe: 'filter', disks: [{ name: 'dev-a' }] })
  t.strictSame(stopped.drain(), [])
})

t.test('a disk with a thread of its own', async (t) => {
  const running = await startMachine(t, ',iothread=io')
  const [, { full }] = await running.machine.disks()
  const { major, minor } = running.qemu.client.version!.qemu
  if (major > 8 || (major === 8 && minor >= 2)) {
    t.strictSame(full, { possible: true })
    await rounds(t, running, {})
    return
  }
  // Its QEMU would abort.
  const reason = /^it has an iothread, and this QEMU aborts when an NBD client leaves/
  t.match(full, { possible: false, reason })
  const options = { disks: [{ name: 'dev-a' }], run: newRun(), point: 'p' }
  await t.rejects(running.machine.freeze(options), { code: 'UNSUPPORTED', why: reason })
})
