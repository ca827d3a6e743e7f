import { BackupError } from '../../errors.ts'
import { closeChain, openChain } from '../../qemu-img/chain.ts'
import { QemuImgError } from '../../qemu-img/messages.ts'
import { nodeOf } from '../../qemu-img/status/chain.ts'
import type { BlockNode } from '../../qemu-img/status/node.ts'

/** One of two disks that are compared. */
export interface OpenedSide {
  /** As messages name it. */
  name: string
  node: BlockNode
  close(): Promise<void>
}

export interface SideOptions {
  /** Default: recognised by the magic. */
  format?: 'raw' | 'qcow2'
  /** Others may be writing to it. */
  forceShare?: boolean
  /** Directories below which files named inside images may be opened, besides their own. */
  allowPaths?: readonly string[]
  /** The format of backing files whose images do not record it. */
  backingFormat?: 'raw' | 'qcow2'
}

/**
 * Opens a disk to be compared.
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED, IN_USE, IO
 */
export async function openSide(name: string, options: SideOptions): Promise<OpenedSide> {
  const image = await openImage(name, options)
  return { name, node: nodeOf(image), close: () => closeChain(image) }
}

/** @throws BackupError as the reason has it, instead of QEMU's words for it */
async function openImage(
  name: string,
  options: Parameters<typeof openChain>[1],
): ReturnType<typeof openChain> {
  try {
    return await openChain(name, options)
  } catch (error) {
    if (!(error instanceof QemuImgError)) throw error
    for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
      if (cause instanceof BackupError) throw cause
    }
    throw new BackupError('BAD_IMAGE', name, error.message)
  }
}
