import { type Owner, ownerIn } from './owner.ts'
import { saidBy, type Virsh } from './virsh.ts'
import { childrenOf, elementAt, escapeXml, parseXml } from './xml.ts'

/** What a domain is busy with. */
export interface DomainJob {
  /** In libvirt's words: `Backup`, `Outgoing migration` … */
  operation: string
  /** Of a backup that one of our runs began. */
  owner?: Owner & { mark: string }
  /** Paths of a backup's files: its scratch files, and its socket. */
  files: string[]
}

/** @returns undefined if the domain is shut off, or not busy */
export async function readJob(
  virsh: Virsh,
  uuid: string,
  signal?: AbortSignal,
): Promise<DomainJob | undefined> {
  let info: string
  try {
    info = await virsh.run(['domjobinfo', `--domain=${uuid}`], { signal })
  } catch (error) {
    if (saidBy(error, /domain is not running/)) return undefined
    throw error
  }
  const type = /^Job type:\s*(.*?)\s*$/m.exec(info)?.[1] ?? 'None'
  if (type === 'None') return undefined
  const operation = /^Operation:\s*(.*?)\s*$/m.exec(info)?.[1] ?? type
  const text = await virsh
    .run(['backup-dumpxml', `--domain=${uuid}`], { signal })
    .catch((error) => {
      // Another job than a backup, or it has just ended.
      if (saidBy(error, /no domain backup job|not found|not running/)) return undefined
      throw error
    })
  if (text === undefined) return { operation, files: [] }
  const xml = await parseXml(text, `${virsh.title}: virsh backup-dumpxml`)
  const scratch = childrenOf(elementAt(xml, 'disks'), 'disk').map((disk) =>
    elementAt(disk, 'scratch')?.attributes.get('file'),
  )
  const socket = elementAt(xml, 'server')?.attributes.get('socket')
  const files = [socket, ...scratch].filter((path) => path !== undefined)
  const owner = files.map(ownerIn).find((one) => one !== undefined)
  return { operation: 'Backup', files, ...(owner && { owner }) }
}

/** Ends the backup job, if there is one. Its new checkpoint stays. */
export async function abortJob(virsh: Virsh, uuid: string): Promise<void> {
  try {
    await virsh.run(['domjobabort', `--domain=${uuid}`])
  } catch (error) {
    if (!saidBy(error, /not running|no job is active/)) throw error
  }
}

/** Where QEMU serves the disks. */
export type NbdServer =
  | { kind: 'unix'; socket: string }
  /** `listen`: the address that QEMU binds to. */
  | { kind: 'tcp'; listen: string; port: number; tls: boolean }

/** A disk of a backup job. */
export interface JobDisk {
  name: string
  /** Path of its scratch file. */
  scratch: string
  /** The checkpoint whose bitmap is exported with it. */
  since?: string
}

/** The name under which the bitmap with the changes of a disk is exported. */
export function exportedBitmap(disk: string): string {
  return `backup-${disk}`
}

/** The XML of a backup job in pull mode; disks that are not named take no part. */
export function backupXml(server: NbdServer, disks: readonly JobDisk[]): string {
  const rows = disks.map(({ name, scratch, since }) => {
    const named = `name='${escapeXml(name)}' exportname='${escapeXml(name)}'`
    const mode =
      since === undefined
        ? "backupmode='full'"
        : `backupmode='incremental' incremental='${escapeXml(since)}' exportbitmap='${escapeXml(exportedBitmap(name))}'`
    return `<disk ${named} backup='yes' type='file' ${mode}><scratch file='${escapeXml(scratch)}'/></disk>`
  })
  const at =
    server.kind === 'unix'
      ? `transport='unix' socket='${escapeXml(server.socket)}'`
      : `transport='tcp' name='${escapeXml(server.listen)}' port='${server.port}'${server.tls ? " tls='yes'" : ''}`
  return `<domainbackup mode='pull'><server ${at}/><disks>${rows.join('')}</disks></domainbackup>`
}

/** The URI of the export of a disk. */
export function exportUri(server: NbdServer, disk: string, host = '', parameters = ''): string {
  const name = encodeURIComponent(disk)
  if (server.kind === 'unix') {
    return `nbd+unix:///${name}?socket=${encodeURIComponent(server.socket).replaceAll('%2F', '/')}`
  }
  return `${server.tls ? 'nbds' : 'nbd'}://${host}:${server.port}/${name}${parameters}`
}
