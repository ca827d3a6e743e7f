import { once } from 'node:events'
import { existsSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { FreezeOptions, Machine, PointInTime } from '../../../lib/machine/machine.ts'
import { openQmpMachine } from '../../../lib/machine/qmp/open.ts'
import { openSource } from '../../../lib/source/open-source.ts'
import { qemuIo } from '../../support/qemu.ts'
import { diskArguments, type QemuSystem, startQemuSystem } from '../../support/qemu-system.ts'
import { backUp, leftBy, makeImage, newRun } from '../../support/qmp-point.ts'
import { unixUri } from '../../support/server.ts'
import { startStorageDaemon } from '../../support/storage-daemon.ts'

const MIB = 2 ** 20

interface TestMachine {
  directory: string
  qemu: QemuSystem
  machine: Machine
}

async function startMachine(t: Test, nbdServer?: string): Promise<TestMachine> {
  const directory = t.testdir()
  const path = makeImage(join(directory, 'a.qcow2'), '32M')
  qemuIo(path, 'write -P 1 0 32M')
  const qemu = await startQemuSystem(t, diskArguments('a', path))
  const machine = await openQmpMachine(qemu.monitor, { nbdServer })
  t.teardown(() => machine.close())
  return { directory, qemu, machine }
}

async function freeze(machine: Machine, run: string, how: Partial<FreezeOptions> = {}) {
  const disks = [{ name: 'dev-a', checkpoint: 'p' }]
  return await machine.freeze({ disks, run, point: 'p', ...how })
}

/** Waits until it is lost. */
async function lossOf({ lost }: PointInTime): Promise<unknown> {
  if (!lost.aborted) await once(lost, 'abort')
  return lost.reason
}

const LOST = 'the point in time is lost: '

t.test('what others end is noticed, and the rest is removed', async (t) => {
  const { directory, qemu, machine } = await startMachine(t)
  const acts: Record<string, (run: string) => Promise<unknown>> = {
    'export qcow2-backup-RUN-exp0 was removed': (run) =>
      qemu.qmp('block-export-del', { id: `qcow2-backup-${run}-exp0`, mode: 'hard' }),
    'job qcow2-backup-RUN-job0 has ended': async (run) => {
      await qemu.qmp('block-export-del', { id: `qcow2-backup-${run}-exp0`, mode: 'hard' })
      await qemu.qmp('job-cancel', { id: `qcow2-backup-${run}-job0` })
    },
  }
  for (const [why, act] of Object.entries(acts)) {
    const run = newRun()
    const point = await freeze(machine, run, { recipe: 'job' })
    await act(run)
    const reason = await lossOf(point)
    const first = [why, Object.keys(acts)[0]].map((one) => LOST + one.replace('RUN', run))
    t.match(reason, { code: 'IO', what: machine.title })
    t.ok(first.includes((reason as { why: string }).why))
    t.strictSame(await point.fail(), [])
    t.strictSame(await leftBy(qemu.qmp, run, directory), [])
  }
})

t.test('a machine that ends', async (t) => {
  const { directory, qemu, machine } = await startMachine(t)
  const point = await freeze(machine, newRun())
  await qemu.qmp('quit')
  t.match(await lossOf(point), { code: 'IO', why: `${LOST}the machine was shut down` })
  t.match(await point.fail(), [/^the machine could not be cleaned up: /])
  t.strictSame(readdirSync(directory), ['a.qcow2'])
})

t.test('a machine that is killed', async (t) => {
  const { directory, qemu, machine } = await startMachine(t)
  const run = newRun()
  const point = await freeze(machine, run)
  await qemu.stop('SIGKILL')
  t.match(await lossOf(point), { code: 'IO', why: /^the point in time is lost: / })
  t.match(await point.fail(), [/^the machine could not be cleaned up: /])
  t.strictSame(readdirSync(directory), ['a.qcow2'])
  t.notOk(existsSync(point.disks[0].source.replace(/.*socket=/, '')))
  const again = await startQemuSystem(t, diskArguments('a', join(directory, 'a.qcow2')))
  const restarted = await openQmpMachine(again.monitor)
  t.teardown(() => restarted.close())
  // It was never stored, so it is not there; or it is, and inconsistent.
  for (const left of await restarted.clean()) t.match(left, { kind: 'bitmap', run })
  t.strictSame(await leftBy(again.qmp, run, directory), [])
  t.match(await restarted.disks(), [{ bitmaps: [] }])
})

t.test('one run at a time', async (t) => {
  const { qemu, machine } = await startMachine(t)
  const run = newRun()
  const point = await freeze(machine, run)
  const why = `another backup of it is running (run ${run})`
  await t.rejects(freeze(machine, newRun()), { code: 'IN_USE', why })
  await t.rejects(freeze(machine, run), { code: 'IN_USE', why: 'a run with this id is alive' })
  t.equal(point.lost.aborted, false)
  t.strictSame(await machine.clean(), [])
  await backUp(point.disks[0], join(t.testdir(), 'backup'))
  t.strictSame(await point.succeed({ remove: [] }), [])
  t.strictSame(await leftBy(qemu.qmp, run), [])
})

t.test('an NBD server that runs already', async (t) => {
  const { directory, qemu, machine } = await startMachine(t)
  const path = join(directory, 'socket')
  const socket = `/tmp/qb-test-${newRun()}`
  await qemu.qmp('nbd-server-start', { addr: { type: 'unix', data: { path: socket } } })
  const theirs = { id: 'theirs', type: 'nbd', 'node-name': 'a', name: 'theirs', writable: false }
  await qemu.qmp('block-export-add', theirs)
  const why = /^an NBD server runs in it already, .*\(nbdServer\)$/
  const run = newRun()
  await t.rejects(freeze(machine, run), { code: 'IN_USE', why })
  t.strictSame(await leftBy(qemu.qmp, run, directory), [])
  await machine.close()
  const told = await openQmpMachine(qemu.monitor, { nbdServer: unixUri(socket, 'whatever') })
  const point = await freeze(told, run)
  t.match(point.disks, [{ source: unixUri(socket, `qcow2-backup-${run}-exp0`) }])
  await backUp(point.disks[0], path)
  t.strictSame(await point.fail(), [])
  t.match(await qemu.qmp('query-block-exports'), [{ id: 'theirs' }])
  t.ok(existsSync(socket), 'it goes on')
  await told.close()
  await qemu.qmp('nbd-server-stop')
})

t.test('our server goes on for exports of others', async (t) => {
  const { qemu, machine } = await startMachine(t)
  const run = newRun()
  const point = await freeze(machine, run)
  const directory = join(tmpdir(), `qcow2-backup-${run}-server`)
  t.ok(existsSync(directory))
  const theirs = { id: 'theirs', type: 'nbd', 'node-name': 'a', name: 'theirs', writable: false }
  await qemu.qmp('block-export-add', theirs)
  const note = /^the NBD server at .* goes on: it also has export theirs$/
  t.match(await point.fail(), [note])
  t.match(await qemu.qmp('query-block-exports'), [{ id: 'theirs' }])
  await qemu.qmp('nbd-server-stop')
  await machine.clean()
  t.notOk(existsSync(directory))
})

t.test('what is stored is discarded, and costs the guest no copies any more', async (t) => {
  const { qemu, machine } = await startMachine(t)
  const recipes = ['job', 'filter'] as const
  for (const recipe of recipes) {
    const point = await freeze(machine, newRun(), { recipe })
    const [disk] = point.disks
    t.equal(disk.discardGranule, 65536)
    await qemu.io('dev-a', 'write -P 2 0 8M')
    t.strictSame(await disk.heldRanges?.(), [{ start: 0, length: 8 * MIB }])
    t.equal(await disk.scratchBytes?.(), 8 * MIB)
    const source = await openSource(disk.source, disk.open)
    await source.discarding(65536)([{ start: 0, length: 16 * MIB }])
    await source.close()
    t.equal(await disk.scratchBytes?.(), 0)
    await qemu.io('dev-a', 'write -P 3 8M 8M')
    t.equal(await disk.scratchBytes?.(), 0)
    await qemu.io('dev-a', 'write -P 4 16M 64k')
    t.strictSame(await disk.heldRanges?.(), [{ start: 16 * MIB, length: 65536 }])
    t.strictSame(await point.fail(), [])
  }
  const point = await freeze(machine, newRun(), { discard: false })
  t.equal(point.disks[0].discardGranule, undefined)
  t.strictSame(await point.fail(), [])
})

t.test('a guest that a killed run had stopped goes on', async (t) => {
  const { qemu, machine } = await startMachine(t)
  const run = newRun()
  const name = `qcow2-backup-${run}-paused`
  await qemu.qmp('block-dirty-bitmap-add', { node: 'a', name, disabled: true })
  await qemu.qmp('stop')
  t.strictSame(await machine.leftovers(), [{ kind: 'bitmap', name, run, disk: 'dev-a' }])
  await machine.clean()
  t.equal(await qemu.status(), 'running')
  await qemu.qmp('stop')
  await machine.clean()
  t.equal(await qemu.status(), 'paused', 'who stopped it wants it so')
})

t.test('options that this QEMU lacks, and disks that it does not have, are refused', async (t) => {
  const { directory, qemu, machine } = await startMachine(t)
  const run = newRun()
  const isOld = qemu.client.version!.qemu.major < 9
  const refused: [Partial<FreezeOptions>, { code: string; why?: RegExp }][] = [
    [{ disks: [] }, { code: 'USAGE' }],
    [{ disks: [{ name: 'x' }] }, { code: 'USAGE', why: /has no disk 'x'; it has 'dev-a'$/ }],
    [{ disks: [{ name: 'dev-a', since: 'x' }] }, { code: 'BAD_BITMAP' }],
    [{ recipe: 'job', cbwTimeout: 1 }, { code: 'USAGE' }],
  ]
  if (isOld) {
    refused.push([{ cbwTimeout: 5 }, { code: 'UNSUPPORTED', why: /in 32 bits: at most 4 seconds/ }])
    refused.push([{ minClusterSize: 2 ** 20 }, { code: 'UNSUPPORTED' }])
    const both = { recipe: 'job', onCbwError: 'break-snapshot' } as const
    refused.push([both, { code: 'UNSUPPORTED', why: /the filter recipe can$/ }])
  } else {
    const point = await freeze(machine, run, { minClusterSize: 2 ** 20 })
    t.equal(point.disks[0].discardGranule, 2 ** 20)
    t.strictSame(await point.fail(), [])
  }
  for (const [how, error] of refused) await t.rejects(freeze(machine, run, how), error)
  const reason = new Error('enough')
  const signal = AbortSignal.abort(reason)
  await t.rejects(freeze(machine, run, { signal }), { code: 'ABORTED', cause: reason })
  const stop = new AbortController()
  const afterFreeze = () => stop.abort(reason)
  const late = freeze(machine, run, { signal: stop.signal, afterFreeze })
  await t.rejects(late, { code: 'ABORTED', cause: reason })
  t.strictSame(await leftBy(qemu.qmp, run, directory), [])
})

t.test('a storage daemon has no devices to put a filter below', async (t) => {
  const daemon = await startStorageDaemon(t, { serving: false })
  await daemon.open('a', makeImage(join(t.testdir(), 'a'), '1M'))
  const machine = await openQmpMachine(daemon.monitor)
  t.teardown(() => machine.close())
  const disks = [{ name: 'a' }]
  const filter = { disks, run: newRun(), point: 'p', recipe: 'filter' as const }
  await t.rejects(machine.freeze(filter), { code: 'UNSUPPORTED' })
  const point = await machine.freeze({ disks, run: newRun(), point: 'p' })
  const isOld = daemon.client.version!.qemu.major < 11
  t.match(
    point.notes,
    isOld ? [/^this QEMU cannot give up the point in time of disk 'a' when/] : [],
  )
  t.strictSame(await point.fail(), [])
})
