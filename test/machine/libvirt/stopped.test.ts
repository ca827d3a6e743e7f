/** Domains that are shut off: their files, under QEMU's locks, and checkpoints that outlast their starts. */
import { join } from 'node:path'
import t from 'tap'
import { startLibvirtd } from '../../support/libvirtd.ts'
import { qemuImg } from '../../support/qemu.ts'
import { back, freeze, MIB, nothingLeft, sameContent, setUp } from './domains.ts'

t.setTimeout(600_000)

t.test('domains that are shut off', async (t) => {
  const libvirtd = await startLibvirtd(t)

  t.test('a chain of checkpoints through starts and stops', async (t) => {
    const { machine, domain, disks, dir } = await setUp(t, libvirtd, 'chain')
    const at = (name: string) => join(dir, name)
    await domain.virsh('destroy')
    t.match(await machine.disks(), [
      { name: 'vda', virtualSize: 64 * MIB, full: { possible: true } },
      { name: 'vdb', virtualSize: 32 * MIB, incremental: { possible: false } },
    ])
    const first = await freeze(
      machine,
      'p1',
      [{ name: 'vda', checkpoint: 'p1' }, { name: 'vdb' }],
      {
        quiesce: true,
      },
    )
    await t.rejects(domain.virsh('start'), /lock/, 'it cannot start meanwhile')
    for (const disk of first.disks) {
      await back(disk, at(`${disk.name}.1.qcow2`))
      const { path, format } = disks.find(({ dev }) => dev === disk.name)!
      qemuImg('compare', '-U', '-f', 'qcow2', '-F', format, at(`${disk.name}.1.qcow2`), path)
    }
    t.strictSame(await first.succeed({ remove: [] }), [])
    await nothingLeft(t, domain, machine, ['p1'])

    await domain.virsh('start')
    t.match(await machine.disks(), [{ bitmaps: [{ name: 'p1', valid: true }] }, { bitmaps: [] }])
    await domain.io('vda', 'write -P 5 30M 1M')
    const reference = await domain.snapshot(disks[0], at('2.raw'))
    const second = await freeze(machine, 'p2', [{ name: 'vda', since: 'p1', checkpoint: 'p2' }])
    t.equal((await back(second.disks[0], at('2.qcow2'), at('vda.1.qcow2'))).dataBytes, MIB)
    sameContent(t, at('2.qcow2'), reference)
    t.strictSame(await second.succeed({ remove: ['p1'] }), [])
    await domain.io('vda', 'write -P 6 31M 1M')
    const later = await domain.snapshot(disks[0], at('3.raw'))

    await domain.virsh('destroy')
    const third = await freeze(machine, 'p3', [{ name: 'vda', since: 'p2', checkpoint: 'p3' }])
    t.equal((await back(third.disks[0], at('3.qcow2'), at('2.qcow2'))).dataBytes, MIB)
    sameContent(t, at('3.qcow2'), later)
    t.strictSame(await third.succeed({ remove: ['p2'] }), [])
    await nothingLeft(t, domain, machine, ['p3'])
    t.notMatch(qemuImg('info', disks[0].path), /name: p2/)
    await domain.virsh('start')
    t.match(await machine.disks(), [{ bitmaps: [{ name: 'p3', valid: true }] }, { bitmaps: [] }])
  })

  t.test('a backup that failed leaves nothing', async (t) => {
    const { machine, domain, disks } = await setUp(t, libvirtd, 'failed')
    await domain.virsh('destroy')
    const point = await freeze(machine, 'p1', [{ name: 'vda', checkpoint: 'p1' }])
    t.strictSame(await point.fail(), [])
    await nothingLeft(t, domain, machine, [])
    t.notMatch(qemuImg('info', disks[0].path), /bitmaps/)
  })

  t.end()
})
