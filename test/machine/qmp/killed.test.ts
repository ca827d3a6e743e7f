import { spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import { openQmpMachine } from '../../../lib/machine/qmp/open.ts'
import { effort } from '../../support/effort.ts'
import { qemuIo } from '../../support/qemu.ts'
import {
  backUp,
  leftBy,
  makeImage,
  newRun,
  readByNbdcopy,
  requireSame,
} from '../../support/qmp-point.ts'
import { socketDirectory } from '../../support/server.ts'
import { type StorageDaemon, startStorageDaemon } from '../../support/storage-daemon.ts'

const SCRIPT = resolve(import.meta.dirname, '../../support/qmp-run.js')

/** The first command that changes something, or one before it. */
const FIRST = effort(11 + randomInt(2), 11)

/** What a run is told. */
interface RunTask {
  monitor: string
  disks: { name: string; since?: string; checkpoint?: string }[]
  run: string
  /** Directory of the backups. */
  directory: string
}

/**
 * Runs a backup in a process of its own, and kills it before its n-th QMP command is carried out, or
 * soon after.
 * @returns whether it came that far
 */
async function killedAt(task: RunTask, n: number): Promise<boolean> {
  const child = spawn(process.execPath, [SCRIPT, JSON.stringify(task)], {
    env: { ...process.env, QCOW2_BACKUP_DEBUG: 'qmp' },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const closed = once(child, 'close')
  let commands = 0
  let stderr = ''
  for await (const line of createInterface({ input: child.stderr })) {
    stderr += `${line}\n`
    if (/: execute /.test(line) && ++commands === n) child.kill('SIGKILL')
  }
  const [status, signal] = await closed
  if (status !== 0 && signal !== 'SIGKILL') throw new Error(stderr)
  return signal === 'SIGKILL'
}

async function startDisks(t: Test): Promise<{ daemon: StorageDaemon; directory: string }> {
  const directory = t.testdir()
  const daemon = await startStorageDaemon(t, { serving: false })
  for (const name of ['a', 'b']) {
    await daemon.open(name, makeImage(join(directory, `${name}.qcow2`), '4M'))
  }
  return { daemon, directory }
}

/** The guest's writes, through an export of its own on whatever NBD server there is. */
async function write(daemon: StorageDaemon, ...commands: string[]): Promise<void> {
  await daemon.serve()
  for (const name of ['a', 'b']) {
    const uri = await daemon.export(name, { name: `guest-${name}`, writable: true })
    qemuIo({ path: uri, format: 'raw' }, ...commands)
    await daemon.unexport(`guest-${name}`)
  }
  await daemon.qmp('nbd-server-stop')
}

/** The checkpoint of the first backup goes, for there is to be another one. */
async function forget(daemon: StorageDaemon): Promise<void> {
  for (const node of ['a', 'b']) {
    // It may have been removed already.
    await daemon.qmp('block-dirty-bitmap-remove', { node, name: 'old' }).catch(() => undefined)
  }
}

// As many runs as a run has commands.
t.setTimeout(600_000)

t.test(
  'a run that is killed at any of its commands leaves nothing that clean does not remove',
  async (t) => {
    // Of its own: what is left there counts, also of tests that run at the same time.
    process.env.TMPDIR = socketDirectory(t)
    const { daemon, directory } = await startDisks(t)
    await write(daemon, 'write -P 1 0 2M')
    const names = ['a', 'b']
    const path = (name: string) => join(directory, `${name}.backup`)
    const backUpFirst = async (...remove: string[]) => {
      const machine = await openQmpMachine(daemon.monitor)
      const point = await machine.freeze({
        ...{ run: newRun(), point: 'old' },
        disks: names.map((name) => ({ name, checkpoint: 'old' })),
      })
      for (const disk of point.disks) await backUp(disk, path(disk.name))
      t.strictSame(await point.succeed({ remove }), [])
      await machine.close()
    }
    await backUpFirst()
    await daemon.addBitmap('a', 'of somebody else')
    const run = newRun()
    const disks = names.map((name) => ({ name, since: 'old', checkpoint: 'new' }))
    const task = { monitor: daemon.monitor, disks, run, directory }
    let kills = 0
    // Until then it only asks.
    for (let n = FIRST; await killedAt(task, n); n += effort(6, 1)) {
      kills++
      await t.test(`killed at command ${n}`, async (t) => {
        const machine = await openQmpMachine(daemon.monitor)
        const left = await machine.leftovers()
        t.same(new Set(left.map((one) => one.run)), new Set(left.length > 0 ? [run] : []))
        t.strictSame(await machine.clean(), left)
        t.strictSame(await machine.leftovers(), [])
        t.strictSame(await leftBy(daemon.qmp, run, directory), [])
        await write(daemon, `write -P ${n} ${64 * (n % 32)}k 64k`)
        const found = (await machine.disks()).map(({ bitmaps }) =>
          bitmaps.flatMap(({ name, valid }) => (valid ? [name] : [])),
        )
        // The backup was complete: its checkpoints have begun, of both disks.
        const isOver = found[0].includes('new')
        for (const names of found) t.equal(names.includes('new'), isOver)
        if (!isOver) t.strictSame(found, [['old'], ['old']])
        if (isOver) {
          await machine.close()
          await forget(daemon)
          await backUpFirst('new')
          return
        }
        const point = await machine.freeze({
          ...{ run: newRun(), point: 'next' },
          disks: names.map((name) => ({ name, since: 'old' })),
        })
        for (const disk of point.disks) {
          const next = join(directory, `${disk.name}.next`)
          await backUp(disk, next, path(disk.name))
          requireSame(t, next, readByNbdcopy(disk, join(directory, 'point.raw')))
        }
        t.strictSame(await point.fail(), [])
        await machine.close()
      })
    }
    t.ok(kills >= effort(3, 20), `${kills} kills`)
    const last = await openQmpMachine(daemon.monitor)
    t.teardown(() => last.close())
    const disk = (await last.disks()).find(({ name }) => name === 'a')
    t.ok(disk?.bitmaps.some(({ name }) => name === 'of somebody else'))
  },
)
