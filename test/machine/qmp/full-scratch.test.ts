/**
 * A real guest overwrites more than the file system of the temporary images holds: the backup ends, not the
 * guest. Runs itself in a mount namespace, with a small tmpfs.
 */
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import type { FreezeOptions } from '../../../lib/machine/machine.ts'
import { openQmpMachine } from '../../../lib/machine/qmp/open.ts'
import { canBeRead } from '../../../lib/machine/qmp/probe.ts'
import { THOROUGH_ONLY } from '../../support/effort.ts'
import { startGuest } from '../../support/guest.ts'
import { inMountNamespace } from '../../support/namespace.ts'
import { qemuImg, qemuIo, run } from '../../support/qemu.ts'
import { leftBy, makeImage, newRun } from '../../support/qmp-point.ts'

t.setTimeout(600_000)

const { SMALL } = process.env

/** Ways of freezing; the first is the default of each QEMU. */
const WAYS: Record<string, Partial<FreezeOptions>> = {
  'by default': {},
  'by a job': { recipe: 'job' },
  'by a filter': { recipe: 'filter' },
  'by a filter that fails the write': { recipe: 'filter', onCbwError: 'break-guest-write' },
}

async function guestGoesOn(t: Test, small: string): Promise<void> {
  const directory = t.testdir()
  const path = makeImage(join(directory, 'disk.qcow2'), '96M')
  qemuIo(path, 'write -P 1 0 96M')
  const guest = await startGuest(t, { disks: [{ node: 'vda', path }] })
  const machine = await openQmpMachine(guest.monitor)
  for (const [name, how] of Object.entries(WAYS)) {
    await t.test(name, async (t) => {
      const id = newRun()
      const disks = [{ name: 'vda', checkpoint: 'p1' }]
      const point = await machine.freeze({ disks, run: id, point: 'p1', scratch: small, ...how })
      const over = once(point.lost, 'abort')
      const write = guest.run('dd if=/dev/zero of=/dev/disk/vda bs=8M count=10 oflag=direct')
      await over
      t.match(point.lost.reason, {
        code: 'IO',
        message: /are free for what the guest overwrites|a write of the guest failed \(no space/,
      })
      t.equal(await point.whyLost?.(), point.lost.reason)
      t.strictSame(await point.fail(), [])
      await write
      t.pass('the guest saw no error')
      t.match(await guest.qmp.execute('query-status'), { status: 'running' })
      t.strictSame(await leftBy((...args) => guest.qmp.execute(...args), id, small), [])
      const [disk] = await machine.disks()
      t.strictSame(disk.bitmaps, [])
    })
  }
  await t.test('a point that QEMU has given up is noticed by asking', async (t) => {
    const point = await machine.freeze({
      ...{ disks: [{ name: 'vda' }], run: newRun(), point: 'p2' },
      ...{ scratch: small, recipe: 'filter' },
    })
    const [disk] = point.disks
    t.equal(await canBeRead(disk), true)
    const filler = join(small, 'filler')
    run('dd', ['if=/dev/zero', `of=${filler}`, 'bs=1M'])
    await guest.run('dd if=/dev/zero of=/dev/disk/vda bs=1M count=1 oflag=direct')
    t.equal(await canBeRead(disk), false)
    const lost = await point.whyLost?.()
    t.match(lost, { code: 'IO', message: /gave the point in time of disk 'vda' up|are free/ })
    t.equal(lost, point.lost.reason)
    rmSync(filler)
    t.strictSame(await point.fail(), [])
  })
  await machine.close()
  await guest.stop()
  qemuIo(path, 'read -P 0 0 80M', 'read -P 1 80M 16M')
  qemuImg('check', path)
}

if (SMALL === undefined) {
  t.test('in a namespace', THOROUGH_ONLY, (t) => {
    const small = mkdtempSync(join(tmpdir(), 'small-'))
    t.teardown(() => rmSync(small, { recursive: true }))
    const script =
      'mount -t tmpfs -o size=48m,mode=1777 none "$1"; SMALL=$1; export SMALL; shift; "$@"'
    const program = [process.execPath, fileURLToPath(import.meta.url)]
    const { status, stdout, stderr } = inMountNamespace(script, small, ...program)
    t.equal(status, 0, `${stdout}${stderr}`)
    t.end()
  })
} else {
  t.test('the guest goes on when the scratch space is full', (t) => guestGoesOn(t, SMALL))
}
