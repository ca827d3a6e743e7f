import t from 'tap'
import { domainOf } from '../../lib/machine/libvirt/domain.ts'
import { parseXml } from '../../lib/machine/libvirt/xml.ts'
import { abortsWithThread } from '../../lib/machine/threads.ts'

t.test('QEMUs that abort when a client leaves a disk with an iothread', (t) => {
  for (const version of ['7.2.22', '8.0.0', '8.1.5']) t.equal(abortsWithThread(version), true)
  for (const version of ['8.2.0', '9.0.1', '10.0.13', undefined, 'new']) {
    t.equal(abortsWithThread(version), false)
  }
  t.end()
})

/** A disk as libvirt describes it. */
function disk(dev: string, driver: string, more = ''): string {
  return `<disk type='file' device='disk'><driver name='qemu' type='qcow2'${driver}
    <source file='/d/${dev}'/><target dev='${dev}'/>${more}</disk>`
}

t.test('disks of domains that have threads', async (t) => {
  const onScsi = (controller: number) =>
    `<address type='drive' controller='${controller}' bus='0' target='0' unit='0'/>`
  const xml = `<domain type='kvm' id='1'><uuid>u</uuid><name>n</name><devices>
    ${disk('vda', '/>')}
    ${disk('vdb', " iothread='1'/>")}
    ${disk('vdc', "><iothreads><iothread id='1'/></iothreads></driver>")}
    ${disk('sda', '/>', onScsi(0))}
    ${disk('sdb', '/>', onScsi(1))}
    <controller type='sata' index='0'><driver iothread='1'/></controller>
    <controller type='scsi' index='0' model='virtio-scsi'/>
    <controller type='scsi' index='1' model='virtio-scsi'><driver iothread='2'/></controller>
  </devices></domain>`
  const { disks } = domainOf(await parseXml(xml, 'a domain'))
  t.strictSame(
    disks.map(({ name, hasThread = false }) => [name, hasThread]),
    [
      ['vda', false],
      ['vdb', true],
      ['vdc', true],
      ['sda', false],
      ['sdb', true],
    ],
  )
})
