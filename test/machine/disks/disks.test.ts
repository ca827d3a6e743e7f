/** Disks at rest as a machine: locks, and the bitmaps of a run that ends well, badly, or not at all. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { utimesSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { LogLine } from '../../../lib/log.ts'
import type { Machine } from '../../../lib/machine/machine.ts'
import { openMachine } from '../../../lib/machine/open-machine.ts'
import { peek64, poke } from '../../support/patch.ts'
import { qemuImg, qemuImgCheck, qemuImgInfo, run } from '../../support/qemu.ts'

const RUN = '0123456789ab'

/** Two disks, of which one can hold bitmaps. */
async function setUp(test: Test): Promise<{ machine: Machine; disk: string; raw: string }> {
  const directory = test.testdir()
  const [disk, raw] = [join(directory, 'a,b.qcow2'), join(directory, 'c.raw')]
  qemuImg('create', '-q', '-f', 'qcow2', disk, '64M')
  qemuImg('bitmap', '--add', disk, 'before')
  qemuImg('create', '-q', '-f', 'raw', raw, '1M')
  const named = `disk:vda=${disk.replaceAll(',', ',,')},vdb=${raw}`
  return { machine: await openMachine(named, { name: 'web' }), disk, raw }
}

/** Names of an image's bitmaps, those that do not record with a mark. */
function bitmapsOf(image: string): string[] {
  const { data } = qemuImgInfo(image)['format-specific'] as {
    data: { bitmaps?: { name: string; flags: string[] }[] }
  }
  return (data.bitmaps ?? []).map(
    ({ name, flags }) => `${name}${flags.includes('auto') ? '' : '!'}`,
  )
}

const wanted = (since?: string) => ({
  run: RUN,
  point: 'p1',
  disks: [{ name: 'vda', checkpoint: 'p1', since }, { name: 'vdb' }],
})

t.test('disks are described, with what is possible', async (t) => {
  const { machine, disk } = await setUp(t)
  const [vda, vdb] = await machine.disks()
  t.match(vda, { name: 'vda', path: disk, format: 'qcow2', virtualSize: 64 * 2 ** 20 })
  t.match(vda.bitmaps, [{ name: 'before', valid: true }])
  t.strictSame([vda.full, vda.incremental], [{ possible: true }, { possible: true }])
  t.match(vdb, { name: 'vdb', format: 'raw', incremental: { possible: false } })
})

t.test('a point in time locks its disks, and ends well or badly', async (t) => {
  const { machine, disk, raw } = await setUp(t)
  for (const stored of [true, false]) {
    const point = await machine.freeze(wanted())
    t.match(point.disks, [{ checkpoint: { name: 'p1', granularity: 65536 } }, { name: 'vdb' }])
    t.equal(point.disks[1].checkpoint, undefined)
    for (const [format, path] of [
      ['qcow2', disk],
      ['raw', raw],
    ]) {
      const writing = run('qemu-io', ['-f', format, '-c', 'write 0 4k', path])
      t.not(writing.status, 0, `${format}: nobody writes meanwhile`)
    }
    t.strictSame(await machine.leftovers(), [{ kind: 'bitmap', name: 'p1', run: RUN, disk: 'vda' }])
    t.strictSame(
      stored ? await point.succeed({ remove: ['before', 'unknown'] }) : await point.fail(),
      [],
    )
    t.strictSame(await point.fail(), [], 'a second time nothing happens')
    t.strictSame(bitmapsOf(disk), stored ? ['p1'] : ['before'])
    t.equal(qemuImgCheck(disk).status, 0)
    qemuImg('bitmap', '--remove', disk, stored ? 'p1' : 'before')
    qemuImg('bitmap', '--add', disk, 'before')
  }
})

t.test('an image is checked once in a run, and again if somebody wrote to it', async (t) => {
  const { machine, disk } = await setUp(t)
  const checks: string[] = []
  const listen = (line: unknown) => {
    const { text } = line as LogLine
    if (/checking it/.test(text)) checks.push(text)
  }
  subscribe('qcow2-backup:edit', listen)
  t.teardown(() => unsubscribe('qcow2-backup:edit', listen))
  for (const written of [false, true]) {
    checks.length = 0
    const point = await machine.freeze(wanted())
    if (written) {
      // An L1 entry, which now names a table past the end of the file.
      const l1 = peek64(disk, 40)
      poke(disk, Number(l1), (1n << 63n) | (1n << 40n))
      // Not in the same tick of the clock as the last write of the run.
      utimesSync(disk, 1, 1)
    }
    const notes = await point.fail()
    t.equal(checks.length, written ? 2 : 1)
    if (written) t.match(notes, [/^disk vda: bitmaps are left in it.* is corrupt/])
    else t.strictSame(notes, [])
  }
})

t.test('what a killed run left is removed, or finished where its backup was stored', async (t) => {
  const { machine, disk } = await setUp(t)
  for (const stored of [true, false]) {
    const mark = `qcow2-backup-${RUN}-p1`
    qemuImg('bitmap', '--add', disk, 'p1')
    qemuImg('bitmap', '--add', '--disable', disk, mark)
    t.strictSame(bitmapsOf(disk), ['before', 'p1', `${mark}!`])
    const cleaned = await machine.clean({ isStored: (run) => stored && run === RUN })
    t.strictSame(cleaned, [{ kind: 'bitmap', name: 'p1', run: RUN, disk: 'vda' }])
    t.strictSame(bitmapsOf(disk), stored ? ['before', 'p1'] : ['before'])
    if (stored) qemuImg('bitmap', '--remove', disk, 'p1')
  }
  t.strictSame(await machine.clean(), [], 'nothing is left')
})

t.test('a disk in use is refused, and the others are as they were', async (t) => {
  const { machine, disk, raw } = await setUp(t)
  const options = { run: RUN, point: 'p1', disks: [{ name: 'vdb' }, wanted().disks[0]] }
  const other = await openMachine(`disk:x=${disk.replaceAll(',', ',,')}`, { name: 'x' })
  const point = await other.freeze({ ...options, disks: [{ name: 'x', checkpoint: 'p0' }] })
  await t.rejects(machine.freeze(options), { code: 'IN_USE' })
  await point.fail()
  t.strictSame(bitmapsOf(disk), ['before'])
  t.equal(run('qemu-io', ['-f', 'raw', '-c', 'write 0 4k', raw]).status, 0, 'it is free again')
})

t.test('names that are no disks, or options for others', async (t) => {
  for (const address of ['', 'vda', 'vda=', '=x', 'a=x,,y,a=z', 'a=x,']) {
    await t.rejects(openMachine(`disk:${address}`, { name: 'x' }), { code: 'USAGE' }, address)
  }
  await t.rejects(openMachine('disk:a=x'), { code: 'USAGE', argument: 'name' })
  await t.rejects(openMachine('vm:a=x', { name: 'x' }), { code: 'USAGE' })
  const { machine } = await setUp(t)
  await t.rejects(machine.freeze({ ...wanted(), quiesce: true }), {
    code: 'USAGE',
    argument: 'quiesce',
  })
})
