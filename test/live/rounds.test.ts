/**
 * Backups of a machine with three disks under load, and in between what happens to machines. Each point,
 * restored, is what others' programs saw at its instant.
 */
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { backupMachine, type DiskBackup, inspectMachine, restoreMachine } from '../../lib/index.ts'
import { THOROUGH } from '../support/effort.ts'
import { isCleanExt4, needsRecovery } from '../support/file-systems.ts'
import { hashOfExport, hashOfImage } from '../support/frozen-point.ts'
import { LoadedMachine } from '../support/loaded-machine.ts'

// More than tap's default, for a busy machine.
t.setTimeout(1_800_000)

/** What is done before a round, under load. */
type Change = (machine: LoadedMachine) => Promise<void>

/** A kind that each disk's backup has to have; `any` where both would be right. */
type Kinds = Record<string, DiskBackup['kind'] | 'any'>

interface Round {
  name: string
  change?: Change
  kinds: Kinds
  /**
   * Who says what the disks held: an export of the same instant, while the guest writes; or the images, of a
   * guest that stands at the instant.
   */
  reference: 'export' | 'images'
  /** The guest's agent freezes the file systems. */
  quiesce?: boolean
}

const FULL: Kinds = { a: 'full', b: 'full', c: 'full' }
/** A raw disk has no bitmap. */
const INCREMENTAL: Kinds = { a: 'incremental', b: 'incremental', c: 'full' }

const grow: Change = async (machine) => {
  for (const name of machine.names) await machine.grow(name, 8 * 2 ** 20)
}

const QUICK: readonly Round[] = [
  { name: 'the first', kinds: FULL, reference: 'export' },
  {
    name: 'after a resize and an external snapshot, with the file systems frozen',
    change: async (machine) => {
      await grow(machine)
      await machine.snapshot('a', true)
      await machine.guest.startAgent()
    },
    kinds: INCREMENTAL,
    reference: 'export',
    quiesce: true,
  },
]

const ROUNDS: readonly Round[] = !THOROUGH
  ? QUICK
  : [
      ...QUICK,
      { name: 'after a resize', change: grow, kinds: INCREMENTAL, reference: 'images' },
      {
        name: 'after a blockcommit',
        change: (machine) => machine.commit('a'),
        kinds: { ...INCREMENTAL, a: 'any' },
        reference: 'export',
      },
      { name: 'an ordinary one', kinds: INCREMENTAL, reference: 'export' },
      {
        name: 'after a reboot of the guest',
        change: (machine) => machine.reboot(),
        kinds: INCREMENTAL,
        reference: 'export',
      },
      {
        name: 'after a restart of QEMU',
        change: (machine) => machine.restart(),
        kinds: INCREMENTAL,
        reference: 'images',
      },
      {
        name: 'after an external snapshot without the bitmap',
        change: (machine) => machine.snapshot('b', false),
        kinds: { ...INCREMENTAL, b: 'full' },
        reference: 'export',
      },
      { name: 'on top of that snapshot', kinds: INCREMENTAL, reference: 'export' },
      {
        name: 'after a restart with a longer chain',
        change: (machine) => machine.restart(),
        kinds: INCREMENTAL,
        reference: 'export',
      },
      {
        name: 'after a blockcommit of the other disk',
        change: (machine) => machine.commit('b'),
        kinds: { ...INCREMENTAL, b: 'any' },
        reference: 'images',
      },
      { name: 'another resize', change: grow, kinds: INCREMENTAL, reference: 'export' },
      {
        name: 'after a crash of QEMU',
        change: async (machine) => {
          await machine.kill()
          await machine.start()
        },
        kinds: FULL,
        reference: 'export',
      },
      { name: 'the last', kinds: INCREMENTAL, reference: 'export' },
    ]

/** Hashes of the disks of a point, by their names. */
type Hashes = Map<string, string>

/** A backup; what the disks held meanwhile is found out by others. */
async function backUp(machine: LoadedMachine, repository: string, round: Round) {
  const hashes: Hashes = new Map()
  const scratch = (name: string) => join(machine.directory, `${name}.reference`)
  const { qmp } = machine
  const hooks =
    round.reference === 'export'
      ? {
          onDisk: async ({ name, source }: { name: string; source: string }) => {
            hashes.set(name, await hashOfExport(source, scratch(name)))
          },
        }
      : {
          beforeFreeze: async () => void (await qmp.execute('stop')),
          afterFreeze: async () => {
            for (const { name, path, format = 'qcow2' } of machine.disks) {
              hashes.set(name, await hashOfImage(path, format, scratch(name)))
            }
            await qmp.execute('cont')
          },
        }
  const title = `qmp:${machine.monitor}`
  const options = { name: 'guest', quiesce: round.quiesce, ...hooks }
  const result = await backupMachine(title, repository, options)
  return { result, hashes }
}

async function requireNothingLeft(t: Test, machine: LoadedMachine): Promise<void> {
  const title = `qmp:${machine.monitor}`
  t.strictSame((await inspectMachine(title)).leftovers, [], 'nothing is left')
  t.strictSame(await machine.qmp.execute('query-jobs'), [])
  t.strictSame(await machine.qmp.execute('query-block-exports'), [])
  t.match(await machine.qmp.execute('query-status'), { status: 'running' })
}

t.test('a machine under load, backed up again and again', async (t) => {
  const machine = new LoadedMachine(t)
  const repository = join(machine.directory, 'repository')
  await machine.start()
  const points: { point: string; hashes: Hashes }[] = []
  for (const round of ROUNDS) {
    await t.test(`round ${points.length + 1}: ${round.name}`, async (t) => {
      await round.change?.(machine)
      await machine.more()
      const { result, hashes } = await backUp(machine, repository, round)
      points.push({ point: result.point, hashes })
      for (const { name, kind, reason } of result.disks) {
        const wanted = round.kinds[name]
        if (wanted !== 'any') t.equal(kind, wanted, `${name}: ${kind}, ${reason ?? 'no reason'}`)
        if (kind === 'full') t.type(reason, 'string')
      }
      await requireNothingLeft(t, machine)
      // The guest goes on, and its writes do not fail.
      await machine.more()
      t.notMatch(await machine.guest.run('dmesg'), /I\/O error/)
    })
  }
  await machine.guest.kill()
  for (const [i, { point, hashes }] of points.entries()) {
    const directory = join(machine.directory, 'restored')
    const { disks } = await restoreMachine(repository, 'guest', directory, { point, force: true })
    t.equal(disks.length, 3)
    for (const { name, target } of disks) {
      const image = join(repository, 'guest', `${name}.${point}.qcow2`)
      const which = `point ${i + 1}, ${name}`
      const hash = hashes.get(name)
      t.equal(await hashOfImage(image, 'qcow2', `${image}.raw`), hash, `${which}: by QEMU's hand`)
      if (ROUNDS[i].quiesce)
        t.notOk(needsRecovery(target), `${which}: no journal is to be replayed`)
      t.ok(isCleanExt4(target), `${which}: the file system is clean`)
      t.equal(await hashOfImage(target, 'raw', `${image}.raw`), hash, `${which}: by ours`)
    }
  }
})
