/** A point in time that its hypervisor loses ends the run with the reason, and everything is undone. */
import { truncateSync } from 'node:fs'
import t from 'tap'
import { BackupError } from '../../lib/index.ts'
import { backupMachine } from '../../lib/live/backup.ts'
import type { Machine, PointInTime } from '../../lib/machine/machine.ts'
import { openMachine } from '../../lib/machine/open-machine.ts'
import { Repository } from '../../lib/repository/repository.ts'
import { RestingMachine } from '../support/repository.ts'

t.setTimeout(300_000)

const LOST = new BackupError('IO', 'web', 'the temporary image is full')

/** Disks at rest, of which a point in time does what is wanted. */
async function machineWith(m: RestingMachine, more: Partial<PointInTime>): Promise<Machine> {
  const machine = await openMachine(m.machine, { name: 'web' })
  return Object.assign(Object.create(machine), {
    title: machine.title,
    name: machine.name,
    disks: () => machine.disks(),
    clean: () => machine.clean(),
    async freeze(options: Parameters<Machine['freeze']>[0]) {
      const point = await machine.freeze(options)
      const { time, disks, versions, notes, lost } = point
      const own = {
        ...{ time, disks, versions, notes, lost },
        succeed: (how: { remove: readonly string[] }) => point.succeed(how),
        fail: () => point.fail(),
      }
      return { ...own, ...more }
    },
  })
}

t.test('it is lost while disks are copied', async (t) => {
  const m = new RestingMachine(t)
  const repository = await Repository.make(m.repository)
  await backupMachine(await openMachine(m.machine, { name: 'web' }), repository)
  const lost = new AbortController()
  const machine = await machineWith(m, { lost: lost.signal })
  const onDisk = () => lost.abort(LOST)
  await t.rejects(backupMachine(machine, repository, { onDisk }), LOST)
  m.requireTidy('after it')
})

t.test('a read fails, and the hypervisor is asked why', async (t) => {
  const m = new RestingMachine(t)
  const repository = await Repository.make(m.repository)
  await backupMachine(await openMachine(m.machine, { name: 'web' }), repository)
  let asked = 0
  const whyLost = async () => {
    asked++
    return LOST
  }
  const machine = await machineWith(m, { whyLost, disks: [] })
  await t.rejects(backupMachine(machine, repository), /lacks disk vda/)
  m.requireTidy('a point without a disk')
  // Its disks cannot be read any more.
  const gone = ['vda', 'vdb'].map((name) => {
    return { name, virtualSize: 2 ** 20, source: `${m.directory}/gone`, open: {} }
  })
  const broken = await machineWith(m, { whyLost, disks: gone })
  await t.rejects(backupMachine(broken, repository, { full: true }), LOST)
  t.equal(asked, 1)
  m.requireTidy('disks that are gone')
  const onDisk = ({ name }: { name: string }) => {
    if (name === 'vdb') truncateSync(m.raw, 0)
  }
  const plain = await machineWith(m, {})
  const changed = { code: 'SOURCE_CHANGED', message: /disk vdb: had 1048576 bytes at the instant/ }
  await t.rejects(backupMachine(plain, repository, { onDisk }), changed)
  m.requireTidy('a disk that shrank')
})

t.test('what cannot be undone is in the message', async (t) => {
  const m = new RestingMachine(t)
  const repository = await Repository.make(m.repository)
  const machine = await machineWith(m, {
    lost: AbortSignal.abort(LOST),
    fail: async () => ['a bitmap is left'],
  })
  const message = 'web: the temporary image is full; a bitmap is left'
  await t.rejects(backupMachine(machine, repository), { code: 'IO', message })
})
