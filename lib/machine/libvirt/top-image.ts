import { open } from '../../files.ts'
import type { DomainDisk } from './domain.ts'
import type { Virsh } from './virsh.ts'

/** What libvirt does not say of the topmost image of a disk. */
export interface TopImage {
  version: number
  /** Bytes. */
  clusterSize: number
}

const MAGIC = 0x514649fb

/** Of a bitmap that is made without one, bytes: QEMU takes the cluster size within these limits. */
const MIN_GRANULARITY = 4096
const MAX_GRANULARITY = 65536

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
      return { version: head.readUInt32BE(4), clusterSize: 2 ** head.readUInt32BE(20) }
    } finally {
      await file.close()
    }
  } catch {
    return undefined
  }
}

/** Of the bitmaps that begin in an image, bytes. */
export function granularityOf(image: TopImage | undefined): number {
  const { clusterSize = MAX_GRANULARITY } = image ?? {}
  return Math.min(Math.max(clusterSize, MIN_GRANULARITY), MAX_GRANULARITY)
}
