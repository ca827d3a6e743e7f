/**
 * The file system of the scratch files is full: QEMU stops the guest then, and the backup ends, not the guest.
 * Runs itself in a mount namespace, with a small tmpfs.
 */
import { chmodSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { openLibvirtMachine } from '../../../lib/machine/libvirt/libvirt.ts'
import { THOROUGH_ONLY } from '../../support/effort.ts'
import { startLibvirtGuest } from '../../support/libvirt-guest.ts'
import { startLibvirtd } from '../../support/libvirtd.ts'
import { inMountNamespace } from '../../support/namespace.ts'
import { qemuImg, qemuIo } from '../../support/qemu.ts'
import { freeze, lost, nothingLeft } from './domains.ts'

t.setTimeout(600_000)

const { SMALL } = process.env

/** Whoever mounted it as root of a user namespace becomes a user again, as libvirtd's sessions want it. */
const AS_USER =
  process.getuid!() === 0 ? [] : ['unshare', '--user', '--map-user=1000', '--map-group=1000']

async function guestGoesOn(t: Test, small: string): Promise<void> {
  const libvirtd = await startLibvirtd(t)
  const path = join(libvirtd.directory, 'vda')
  qemuImg('create', '-q', '-f', 'qcow2', path, '64M')
  qemuIo(path, 'write -P 1 0 64M')
  const guest = await startLibvirtGuest(t, libvirtd, 'full', [
    { dev: 'vda', path, format: 'qcow2' },
  ])
  const machine = await openLibvirtMachine('full', { connect: libvirtd.connect })
  const wanted = [{ name: 'vda', checkpoint: 'p1' }]
  const point = await freeze(machine, 'p1', wanted, { scratch: small })
  const writes = guest.run('dd if=/dev/zero of=/dev/disk/vda bs=1M count=48 conv=fsync')
  const { reason } = await lost(point)
  t.match(reason, { code: 'IO', why: /most likely since .* is full: the backup job was ended/ })
  t.ok(reason.why.includes(small))
  await writes
  t.pass('the guest saw no error')
  t.strictSame(await point.fail(), [])
  t.match(await guest.virsh('domstate'), /running/)
  await nothingLeft(t, guest, machine, [])
  await guest.virsh('destroy')
  qemuIo(path, 'read -P 0 0 48M', 'read -P 1 48M 16M')
}

if (SMALL === undefined) {
  t.test('in a namespace', THOROUGH_ONLY, (t) => {
    const small = mkdtempSync(join(tmpdir(), 'small-'))
    chmodSync(small, 0o755)
    t.teardown(() => rmSync(small, { recursive: true }))
    const script =
      'mount -t tmpfs -o size=16m,mode=1777 none "$1"; SMALL=$1; export SMALL; shift; "$@"'
    const program = [process.execPath, fileURLToPath(import.meta.url)]
    const { status, stdout, stderr } = inMountNamespace(script, small, ...AS_USER, ...program)
    t.equal(status, 0, `${stdout}${stderr}`)
    t.end()
  })
} else {
  t.test('the guest goes on when the scratch space is full', (t) => guestGoesOn(t, SMALL))
}
