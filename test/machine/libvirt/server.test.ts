/** Where QEMU serves the disks of a domain on another host. */
import { chmodSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openLibvirtMachine } from '../../../lib/machine/libvirt/libvirt.ts'
import { serverOf } from '../../../lib/machine/libvirt/server.ts'
import { Virsh } from '../../../lib/machine/libvirt/virsh.ts'
import { freePort, makeCertificates } from '../../support/certificates.ts'
import { startLibvirtd } from '../../support/libvirtd.ts'
import { back, freeze, nothingLeft, sameContent, setUp } from './domains.ts'

t.setTimeout(600_000)

t.test('over TCP, with certificates of both sides', async (t) => {
  let certificates = ''
  const libvirtd = await startLibvirtd(t, (directory) => {
    certificates = makeCertificates(join(directory, 'tls'), 2)
    // Of a test: QEMU's user is to read the keys.
    for (const name of readdirSync(certificates)) chmodSync(join(certificates, name), 0o644)
    return `backup_tls_x509_cert_dir = "${certificates}"\nbackup_tls_x509_verify = 1\n`
  })
  const plain = await freePort()
  const one = await setUp(t, libvirtd, 'plain', { nbdAddress: `127.0.0.1:${plain}` })
  const reference = await one.domain.snapshot(one.disks[0], join(one.dir, 'raw'))
  const open = await freeze(one.machine, 'p1', [{ name: 'vda', checkpoint: 'p1' }])
  t.equal(open.disks[0].source, `nbd://127.0.0.1:${plain}/vda`)
  await back(open.disks[0], join(one.dir, '1.qcow2'))
  sameContent(t, join(one.dir, '1.qcow2'), reference)
  t.strictSame(await open.succeed({ remove: [] }), [])

  const nbdAddress = `localhost:${await freePort()}`
  const two = await setUp(t, libvirtd, 'tls', { nbdAddress, tlsCertificates: certificates })
  const secret = await two.domain.snapshot(two.disks[0], join(two.dir, 'raw'))
  const closed = await freeze(two.machine, 'p1', [{ name: 'vda', checkpoint: 'p1' }])
  await back(closed.disks[0], join(two.dir, '1.qcow2'))
  sameContent(t, join(two.dir, '1.qcow2'), secret)
  const unencrypted = { name: 'vda', virtualSize: 0, open: {}, source: `nbd://${nbdAddress}/vda` }
  await t.rejects(back(unencrypted, join(two.dir, '2.qcow2')), { code: 'IO', message: /TLS/ })
  t.strictSame(await closed.fail(), [])
  await nothingLeft(t, two.domain, two.machine, [])
})

t.test('a remote host needs an address', async (t) => {
  const remote = new Virsh('qemu+ssh://root@kvm1/system', 'libvirt:web1')
  t.notOk(remote.isLocal)
  t.throws(() => serverOf(remote, {}), { code: 'USAGE', message: /nbdAddress.*tlsCertificates/ })
  const local = new Virsh('qemu:///system', 'libvirt:web1')
  t.equal(serverOf(local, {}), undefined)
  t.throws(() => serverOf(local, { tlsCertificates: '/tls' }), { message: /needs nbdAddress/ })
  for (const wrong of ['kvm1', 'kvm1:0', 'kvm1:65536', 'a b:1', ':1', '[::1', "'/>:1"]) {
    t.throws(() => serverOf(remote, { nbdAddress: wrong }), { code: 'USAGE' }, wrong)
  }
  t.match(serverOf(remote, { nbdAddress: '[fe80::1]:99' }), {
    listen: 'fe80::1',
    host: '[fe80::1]',
  })
})

t.test('what is not there is told', async (t) => {
  const path = process.env.PATH
  t.teardown(() => {
    process.env.PATH = path
  })
  const connect = `qemu+unix:///session?socket=${join(t.testdir(), 'none')}`
  await t.rejects(openLibvirtMachine('web1', { connect }), {
    code: 'IO',
    message: /libvirt:web1: failed to connect to the hypervisor; Failed to connect socket/,
  })
  process.env.PATH = t.testdir()
  await t.rejects(openLibvirtMachine('web1'), {
    code: 'IO',
    message: /virsh: is not installed; .*install libvirt-clients/,
  })
  await t.rejects(openLibvirtMachine(''), { code: 'USAGE' })
})
