/** A chain of increments through what is done to domains between backups. */
import { join } from 'node:path'
import t from 'tap'
import { THOROUGH } from '../../support/effort.ts'
import { startLibvirtd, type TestDisk } from '../../support/libvirtd.ts'
import { back, freeze, nothingLeft, sameContent, setUp } from './domains.ts'

t.setTimeout(600_000)

t.test('increments go on through snapshots, commits, resizes, reboots and restarts', async (t) => {
  const libvirtd = await startLibvirtd(t)
  const { machine, domain, disks, dir } = await setUp(t, libvirtd, 'rounds')
  const overlay = join(libvirtd.directory, 'overlay.qcow2')
  let top: TestDisk = disks[0]
  const events: [what: string, happens: () => Promise<void>][] = [
    ['nothing', async () => {}],
    [
      'an external snapshot',
      async () => {
        const spec = `vda,file=${overlay}`
        const other = 'vdb,snapshot=no'
        await domain.virsh(
          ...['snapshot-create-as', '--name', 's1', '--disk-only', '--no-metadata'],
          ...['--diskspec', spec, '--diskspec', other],
        )
        top = { ...disks[0], path: overlay }
      },
    ],
    ['a reset', async () => void (await domain.virsh('reset'))],
    [
      'a restart of libvirtd',
      async () => {
        await libvirtd.stop('SIGKILL')
        await libvirtd.start()
      },
    ],
    [
      'a commit',
      async () => {
        await domain.virsh('blockcommit', 'vda', '--active', '--pivot', '--wait')
        // All of the chain goes into its lowest image.
        top = { ...disks[0], path: join(libvirtd.directory, 'rounds-base.qcow2') }
      },
    ],
    ['a resize', async () => void (await domain.virsh('blockresize', 'vda', '80M'))],
    [
      'a stop and a start',
      async () => {
        await domain.virsh('destroy')
        await domain.virsh('start')
      },
    ],
  ]
  let since: string | undefined
  // A quick run has a snapshot, a commit and a restart of the guest.
  const happening = events.filter((_, i) => THOROUGH || [0, 1, 4, 6].includes(i))
  for (const [i, [what, happens]] of happening.entries()) {
    const point = `p${i}`
    await domain.io('vda', `write -P ${i + 20} ${i * 7}M 1M`)
    await happens()
    await domain.io('vda', `write -P ${i + 40} ${i * 7 + 3}M 64k`)
    if (since !== undefined) {
      const [{ bitmaps }] = await machine.disks()
      t.match(bitmaps, [{ name: since, valid: true }], `after ${what}`)
    }
    const reference = await domain.snapshot(top, join(dir, `${point}.raw`))
    const frozen = await freeze(machine, point, [{ name: 'vda', since, checkpoint: point }])
    // The job is in QEMU: libvirt may be restarted.
    if (i === 2) {
      await libvirtd.stop('SIGKILL')
      await libvirtd.start()
    }
    await domain.io('vda', `write -P 9 0 16M`)
    const backing = since && join(dir, `${since}.qcow2`)
    const target = join(dir, `${point}.qcow2`)
    await back(frozen.disks[0], target, backing)
    sameContent(t, target, reference)
    t.notOk(frozen.lost.aborted)
    t.strictSame(await frozen.succeed({ remove: since === undefined ? [] : [since] }), [])
    await nothingLeft(t, domain, machine, [point])
    since = point
  }
})
