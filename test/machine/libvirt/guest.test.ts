/** A real guest as a libvirt domain, which writes all the time, with its agent. */
import { join } from 'node:path'
import t from 'tap'
import { openLibvirtMachine } from '../../../lib/machine/libvirt/libvirt.ts'
import { THOROUGH_ONLY } from '../../support/effort.ts'
import { isCleanExt4, makeExt4 } from '../../support/file-systems.ts'
import { startLibvirtGuest } from '../../support/libvirt-guest.ts'
import { startLibvirtd, type TestDisk } from '../../support/libvirtd.ts'
import { qemuImg, run } from '../../support/qemu.ts'
import { wrapVirsh } from '../../support/virsh-wrapper.ts'
import { back, freeze, nothingLeft } from './domains.ts'

t.setTimeout(600_000)

t.test('a guest whose file systems are frozen for the instant', THOROUGH_ONLY, async (t) => {
  const libvirtd = await startLibvirtd(t)
  const dir = t.testdir()
  const disks: TestDisk[] = [
    { dev: 'vda', path: join(libvirtd.directory, 'vda'), format: 'qcow2' },
    { dev: 'vdb', path: join(libvirtd.directory, 'vdb'), format: 'raw' },
  ]
  for (const { path, format } of disks) makeExt4(path, 64 * 2 ** 20, { format })
  const guest = await startLibvirtGuest(t, libvirtd, 'linux', disks)
  const machine = await openLibvirtMachine('linux', { connect: libvirtd.connect })
  await guest.run('mkdir -p /a /b; mount /dev/disk/vda /a; mount /dev/disk/vdb /b')
  const wanted = [{ name: 'vda', checkpoint: 'p1' }, { name: 'vdb' }]

  await t.rejects(freeze(machine, 'p1', wanted, { quiesce: true }), {
    code: 'IO',
    why: /file systems cannot be frozen: .*agent is not connected/i,
  })
  await nothingLeft(t, guest, machine, [])

  await guest.startAgent()
  await guest.run(
    '(i=0; while :; do i=$((i+1)); echo $i >/a/n; sync; echo $i >/b/n; sync; done) >/dev/null 2>&1 &',
  )
  // The agent is connected once libvirt hears of it.
  while (!/state='connected'/.test(await guest.virsh('dumpxml'))) {}
  const goesOn = async () => {
    const now = await guest.run('cat /a/n')
    await guest.run(`until [ "$(cat /a/n)" != "${now.trim()}" ]; do :; done`)
  }
  let last: string | undefined
  for (const point of ['p1', 'p2', 'p3']) {
    const since = last === undefined ? {} : { since: last }
    const both = [{ name: 'vda', checkpoint: point, ...since }, { name: 'vdb' }]
    const frozen = await freeze(machine, point, both, { quiesce: true })
    t.strictSame(frozen.notes, [])
    for (const disk of frozen.disks) {
      const target = join(dir, `${disk.name}.${point}.qcow2`)
      const backing = disk.open.bitmap && join(dir, `${disk.name}.${last}.qcow2`)
      await back(disk, target, backing)
      const raw = join(dir, `${disk.name}.${point}.raw`)
      qemuImg('convert', '-O', 'raw', target, raw)
      t.ok(isCleanExt4(raw), `${disk.name} at ${point} is sound`)
      const features = run('dumpe2fs', ['-h', raw]).stdout
      t.match(features, /has_journal/)
      t.notMatch(features, /needs_recovery/, `${disk.name} at ${point} was frozen`)
    }
    t.strictSame(await frozen.succeed({ remove: last === undefined ? [] : [last] }), [])
    last = point
  }
  await nothingLeft(t, guest, machine, ['p3'])
  await goesOn()

  const failing = wrapVirsh(dir, [{ command: 'backup-begin', fails: true }])
  const before = process.env.PATH
  process.env.PATH = failing.path
  await t.rejects(freeze(machine, 'p4', wanted, { quiesce: true }), {
    code: 'IO',
    message: /as the test has it/,
  })
  process.env.PATH = before
  const begin = failing.commands().indexOf('backup-begin')
  t.strictSame(failing.commands().slice(begin - 1, begin + 2), [
    ...['domfsfreeze', 'backup-begin', 'domfsthaw'],
  ])
  await goesOn()
})
