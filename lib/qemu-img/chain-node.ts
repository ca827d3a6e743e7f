import { HostNode } from '../block-status/host.ts'
import type { BlockNode } from '../block-status/node.ts'
import { Qcow2Node } from '../block-status/qcow2.ts'
import type { ChainImage } from './chain.ts'

/** The tables that an image is read by: its own, or those of an internal snapshot. */
export interface ActiveTable {
  /** Entries of the L1 table. */
  l1Size: number
  /** Bytes. */
  l1TableOffset: number
}

/** How an image is looked at. */
export interface NodeOptions {
  /** Takes what QEMU prints of a corrupt image that it goes on with. */
  warn?: (text: string) => void
  /** Instead of the image's own tables. */
  active?: ActiveTable
  /** Answers are no longer than QEMU's. */
  capped?: boolean
}

/** An open image and all below it, as QEMU's block layer sees them. */
export function nodeOf(
  image: ChainImage,
  { warn = () => {}, active, capped }: NodeOptions = {},
): BlockNode {
  const file = { ...image.file, filename: image.filename }
  if (!image.qcow2) return new HostNode(file)
  const { dataFile, backing } = image
  return new Qcow2Node({
    file,
    header: { ...image.qcow2.header, ...active },
    data: dataFile ? { ...dataFile.file, filename: dataFile.filename } : file,
    backing: backing && nodeOf(backing, { warn, capped }),
    capped,
    onCorrupt: (message) => warn(corruptionText(message)),
  })
}

/** What QEMU prints of a corrupt image. */
export function corruptionText(message: string): string {
  return (
    `qcow2: Image is corrupt: ${message}; ` +
    'further non-fatal corruption events will be suppressed\n'
  )
}

/** What QEMU prints of an image when a status cannot be known, besides the error itself. */
export function textOf({ corruption }: { corruption?: string }): string {
  return corruption === undefined ? '' : corruptionText(corruption)
}
