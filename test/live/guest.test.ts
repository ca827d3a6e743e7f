import { join } from 'node:path'
import t from 'tap'
import { whileFrozen } from '../../lib/qmp/frozen-guest.ts'
import { THOROUGH_ONLY } from '../support/effort.ts'
import { isCleanExt4, makeExt4 } from '../support/file-systems.ts'
import { startGuest } from '../support/guest.ts'

t.test('a guest’s file systems are frozen by its agent, and thawed', THOROUGH_ONLY, async (t) => {
  const directory = t.testdir()
  const [blk, scsi] = ['blk', 'scsi'].map((name) => join(directory, name))
  makeExt4(blk, 64 * 2 ** 20)
  makeExt4(scsi, 64 * 2 ** 20, { format: 'qcow2' })
  const guest = await startGuest(t, {
    disks: [
      { node: 'blk', path: blk, format: 'raw' },
      { node: 'scsi', path: scsi, bus: 'scsi' },
    ],
  })
  t.match(await guest.run('ls /dev/disk'), /^blk\s+scsi\s*$/)
  await t.rejects(guest.run('echo out; false'), { message: /ended with 1: out/ })
  await guest.run('mkdir -p /a /b; mount /dev/disk/blk /a; mount /dev/disk/scsi /b')
  await guest.startAgent()
  const writes = '(while :; do echo x >>/a/log; sync; done) >/dev/null 2>&1 & writer=$!'
  await guest.run(writes)
  const sizes = async () => {
    const one = await guest.run('stat -c %s /a/log')
    return one.trim()
  }
  const { fileSystems } = await whileFrozen(guest.agent, async () => {
    const first = await sizes()
    await guest.run('usleep 200000')
    t.equal(await sizes(), first, 'nothing is written while they are frozen')
  })
  t.equal(fileSystems, 2)
  const after = await sizes()
  await guest.run(`until [ "$(stat -c %s /a/log)" != ${after} ]; do :; done; kill $writer`)
  await guest.reboot()
  t.equal(await guest.run('mount /dev/disk/blk /mnt && ls -1 /mnt'), 'log\nlost+found\n')
  await guest.kill()
  t.ok(isCleanExt4(blk))
})
