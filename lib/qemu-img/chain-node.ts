import { HostNode } from '../block-status/host.ts'
import type { BlockNode } from '../block-status/node.ts'
import { Qcow2Node } from '../block-status/qcow2-status.ts'
import type { ChainImage } from '../image/image-chain.ts'

/** The tables that an image is read by: its own, or those of an internal snapshot. */
export interface ActiveTable {
  /** Entries of the L1 table. */
  l1Size: number
  /** Bytes. */
  l1TableOffset: number
}

/** How an image is read. */
export interface NodeOptions {
  /** Receives QEMU's message about a corrupt image that it continues with. */
  warn?: (text: string) => void
  /** Instead of the image's own tables. */
  active?: ActiveTable
  /** Answers are at most as long as QEMU's. */
  capped?: boolean
}

/**
 * An open image and all below it, as QEMU's block layer sees them.
 * @param images top first
 */
export function nodeOf(
  [image, ...below]: readonly ChainImage[],
  { warn = () => {}, active, capped }: NodeOptions = {},
): BlockNode {
  const { header, dataFile } = image
  const file = { ...image.file, filename: image.path }
  if (!header) return new HostNode(file)
  return new Qcow2Node({
    file,
    header: { ...header, ...active },
    data: dataFile ? { ...dataFile.file, filename: dataFile.path } : file,
    backing: below.length > 0 ? nodeOf(below, { warn, capped }) : undefined,
    capped,
    onCorrupt: (message) => warn(corruptionText(message)),
  })
}

/** QEMU's message about a corrupt image. */
export function corruptionText(message: string): string {
  return (
    `qcow2: Image is corrupt: ${message}; ` +
    'further non-fatal corruption events will be suppressed\n'
  )
}

/** QEMU's message about an image whose status cannot be read, besides the error itself. */
export function textOf({ corruption }: { corruption?: string }): string {
  return corruption === undefined ? '' : corruptionText(corruption)
}
