import { BackupError } from '../../errors.ts'
import { quoted } from '../../text.ts'
import type { Virsh } from './virsh.ts'
import { childrenOf, elementAt, parseXml, textAt, type XmlElement } from './xml.ts'

/** An image of a disk's backing chain. */
export interface DiskImage {
  format: string
  /** Of a file or a block device; else it is in the network or a pool. */
  path?: string
  /** Of an active domain: its node in QEMU. */
  node?: string
}

/** A disk of a domain that can be written to. */
export interface DomainDisk {
  /** `<target dev>`, which names it in all of libvirt. */
  name: string
  /** Of its device in QEMU. */
  alias?: string
  /** Top first. */
  chain: DiskImage[]
  /** Why no backup job can read it, in words. */
  cannot?: string
  /** It, or its controller, does its I/O in a thread of its own. */
  hasThread?: boolean
}

/** A domain as it is now. */
export interface Domain {
  uuid: string
  name: string
  /** It has a QEMU process. */
  isActive: boolean
  disks: DomainDisk[]
  /** Whom its QEMU process runs as. */
  user?: { uid: number; gid: number }
}

/**
 * Finds a domain. virsh takes a name that is a number for an id, so this looks in the list.
 * @param wanted its name, or its UUID
 * @throws BackupError IO if there is none; as Virsh.run
 */
export async function findDomain(
  virsh: Virsh,
  wanted: string,
  signal?: AbortSignal,
): Promise<{ uuid: string; name: string }> {
  const list = await virsh.run(['list', '--all', '--uuid', '--name'], { signal })
  const domains = list.split('\n').flatMap((line) => {
    const [, uuid, name] = /^\s*([0-9a-f-]{36})\s+(.*?)\s*$/.exec(line) ?? []
    return uuid ? [{ uuid, name }] : []
  })
  const found =
    domains.find(({ name }) => name === wanted) ?? domains.find(({ uuid }) => uuid === wanted)
  if (found) return found
  const names = domains.map(({ name }) => quoted(name)).join(', ')
  const why = `there is no such domain at ${virsh.connect}${names ? `; there are ${names}` : ''}`
  throw new BackupError('IO', virsh.title, why, { errno: 'ENOENT' })
}

/** @throws as Virsh.run */
export async function readDomain(
  virsh: Virsh,
  uuid: string,
  signal?: AbortSignal,
): Promise<Domain> {
  const text = await virsh.run(['dumpxml', `--domain=${uuid}`], { signal })
  return domainOf(await parseXml(text, `${virsh.title}: virsh dumpxml`))
}

/** The definition from which the domain can be made again. */
export async function readDefinition(
  virsh: Virsh,
  uuid: string,
  signal?: AbortSignal,
): Promise<string> {
  // What is inactive of a transient domain is nothing, so the active one is shown, without what is
  // only of this run.
  return await virsh.run(['dumpxml', `--domain=${uuid}`, '--inactive'], { signal })
}

/** Reads `<domain>`; disks that no backup needs are left out: empty ones, CD-ROMs, read-only ones. */
export function domainOf(xml: XmlElement): Domain {
  const disks = childrenOf(elementAt(xml, 'devices'), 'disk').filter((disk) => {
    const device = disk.attributes.get('device') ?? 'disk'
    const isWritable = (device === 'disk' || device === 'lun') && !elementAt(disk, 'readonly')
    return isWritable && elementAt(disk, 'target') && elementAt(disk, 'source')
  })
  const label = childrenOf(xml, 'seclabel').find((one) => one.attributes.get('model') === 'dac')
  const [, uid, gid] = /^\+(\d+):\+(\d+)$/.exec(textAt(label, 'label') ?? '') ?? []
  return {
    uuid: textAt(xml, 'uuid') ?? '',
    name: textAt(xml, 'name') ?? '',
    isActive: xml.attributes.has('id'),
    disks: disks.map((disk) => {
      return hasThread(disk, elementAt(xml, 'devices'))
        ? { ...diskOf(disk), hasThread: true }
        : diskOf(disk)
    }),
    ...(uid !== undefined && { user: { uid: Number(uid), gid: Number(gid) } }),
  }
}

/** `<driver iothread='1'>`, or `<iothreads>` in it, of the disk or of the controller that it is on. */
function hasThread(disk: XmlElement, devices: XmlElement | undefined): boolean {
  const address = elementAt(disk, 'address')?.attributes
  const controller = childrenOf(devices, 'controller').find(({ attributes }) => {
    const isDrive = address?.get('type') === 'drive' && attributes.get('type') === 'scsi'
    return isDrive && attributes.get('index') === address.get('controller')
  })
  return [disk, controller].some((element) => {
    const driver = elementAt(element, 'driver')
    return driver?.attributes.has('iothread') || elementAt(driver, 'iothreads') !== undefined
  })
}

function diskOf(xml: XmlElement): DomainDisk {
  const type = xml.attributes.get('type') ?? 'file'
  const chain: DiskImage[] = []
  const format = elementAt(xml, 'driver')?.attributes.get('type') ?? 'raw'
  chain.push({ format, path: pathOf(xml), node: nodeOf(elementAt(xml, 'source')) })
  let backing = elementAt(xml, 'backingStore')
  while (backing && elementAt(backing, 'source')) {
    const format = elementAt(backing, 'format')?.attributes.get('type') ?? 'raw'
    chain.push({ format, path: pathOf(backing), node: nodeOf(backing) })
    backing = elementAt(backing, 'backingStore')
  }
  return {
    name: elementAt(xml, 'target')?.attributes.get('dev') ?? '',
    alias: elementAt(xml, 'alias')?.attributes.get('name'),
    chain,
    ...(/^(vhostuser|vhostvdpa|nvme|dir)$/.test(type) && {
      cannot: `a disk of type ${quoted(type)} is not read by QEMU's block layer, which makes backups`,
    }),
  }
}

function nodeOf(xml: XmlElement | undefined): string | undefined {
  const index = xml?.attributes.get('index')
  return index === undefined ? undefined : `libvirt-${index}-format`
}

function pathOf(xml: XmlElement): string | undefined {
  const source = elementAt(xml, 'source')
  const path = source?.attributes.get('file') ?? source?.attributes.get('dev')
  return path?.startsWith('/') ? path : undefined
}

/** Virtual sizes by disk, bytes. */
export async function readSizes(
  virsh: Virsh,
  uuid: string,
  signal?: AbortSignal,
): Promise<Map<string, number>> {
  const table = await virsh.run(['domblkinfo', `--domain=${uuid}`, '--all'], { signal })
  const rows = table.split('\n').map((line) => line.trim().split(/\s+/))
  return new Map(
    rows.filter(([, size]) => /^\d+$/.test(size ?? '')).map(([name, size]) => [name, Number(size)]),
  )
}

/** Versions of the host's programs, by program; what is not told is left out. */
export async function readVersions(
  virsh: Virsh,
  signal?: AbortSignal,
): Promise<Record<string, string>> {
  const text = await virsh.run(['version', '--daemon'], { signal })
  const of = (pattern: RegExp) => pattern.exec(text)?.[1]
  const found = {
    libvirt: of(/^Running against daemon: (\S+)/m) ?? of(/^Using API: \S+ (\S+)/m),
    qemu: of(/^Running hypervisor: QEMU (\S+)/m),
    virsh: of(/^Using library: libvirt (\S+)/m),
  }
  return Object.fromEntries(
    Object.entries(found).filter((one): one is [string, string] => one[1] !== undefined),
  )
}
