/** A real guest whose file systems its agent freezes for the instant. */
import { join } from 'node:path'
import t from 'tap'
import { openQmpMachine } from '../../../lib/machine/qmp/open.ts'
import { THOROUGH_ONLY } from '../../support/effort.ts'
import { isCleanExt4, makeExt4 } from '../../support/file-systems.ts'
import { startGuest } from '../../support/guest.ts'
import { qemuImg, run } from '../../support/qemu.ts'
import { backUp, newRun } from '../../support/qmp-point.ts'

t.setTimeout(600_000)

t.test(
  'file systems that are frozen for the instant need no recovery in the backup',
  THOROUGH_ONLY,
  async (t) => {
    const directory = t.testdir()
    const path = makeExt4(join(directory, 'disk.qcow2'), 64 * 2 ** 20, { format: 'qcow2' })
    const guest = await startGuest(t, { disks: [{ node: 'vda', path }] })
    const machine = await openQmpMachine(guest.monitor)
    t.teardown(() => machine.close())
    await guest.run('mkdir /a; mount /dev/disk/vda /a')
    await guest.run('(i=0; while :; do i=$((i+1)); echo $i >/a/n; sync; done) >/dev/null 2>&1 &')
    await guest.startAgent()
    for (const quiesce of [true, false]) {
      const told: string[] = []
      const point = await machine.freeze({
        ...{ disks: [{ name: 'vda' }], run: newRun(), point: 'p', quiesce },
        beforeFreeze: () => void told.push('before'),
        afterFreeze: () => void told.push('after'),
      })
      t.strictSame(told, ['before', 'after'])
      const now = await guest.run('cat /a/n')
      await guest.run(`until [ "$(cat /a/n)" != "${now.trim()}" ]; do :; done`)
      const backup = await backUp(point.disks[0], join(directory, 'backup.qcow2'))
      t.strictSame(await point.succeed({ remove: [] }), [])
      const raw = join(directory, 'raw')
      qemuImg('convert', '-O', 'raw', backup, raw)
      t.ok(isCleanExt4(raw))
      const needsRecovery = /needs_recovery/.test(run('dumpe2fs', ['-h', raw]).stdout)
      t.equal(needsRecovery, !quiesce)
    }
  },
)

t.test('a guest without an agent that answers is not frozen', async (t) => {
  const path = makeExt4(join(t.testdir(), 'disk.qcow2'), 16 * 2 ** 20, { format: 'qcow2' })
  const guest = await startGuest(t, { disks: [{ node: 'vda', path }] })
  const machine = await openQmpMachine(guest.monitor, { guestAgent: `${guest.agent}.no` })
  t.teardown(() => machine.close())
  const options = { disks: [{ name: 'vda' }], run: newRun(), point: 'p', quiesce: true }
  await t.rejects(machine.freeze(options), { code: 'IO', errno: 'ENOENT' })
  t.strictSame(await machine.leftovers(), [])
})
