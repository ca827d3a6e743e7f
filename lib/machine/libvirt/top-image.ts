import { open } from '../../files.ts'
import { FIELD, MAGIC } from '../../format/qcow2/constants.ts'
import type { DomainDisk } from './domain.ts'
import type { Virsh } from './virsh.ts'

/** What libvirt does not say of the topmost image of a disk. */
export interface TopImage {
  version: number
  /** Bytes. */
  clusterSize: number
}

/**
 * Looks at the header of a disk's topmost image.
 * @returns undefined if it is no qcow2 image, or cannot be read here: only libvirt must be able to
 */
export async function lookAtTop(virsh: Virsh, disk: DomainDisk): Promise<TopImage | undefined> {
  const [{ format, path }] = disk.chain
  if (format !== 'qcow2' || path === undefined || !virsh.isLocal) return undefined
  try {
    const file = await open(path)
    try {
      const head = Buffer.alloc(24)
      await file.read(head, 0, head.length, 0)
      if (head.readUInt32BE(0) !== MAGIC) return undefined
      return {
        version: head.readUInt32BE(FIELD.version),
        clusterSize: 2 ** head.readUInt32BE(FIELD.clusterBits),
      }
    } finally {
      await file.close()
    }
  } catch {
    return undefined
  }
}
