import type { BlockNode } from '../../block-status/node.ts'
import type { SourceIdentity } from '../../copy/target/judge.ts'
import { BackupError } from '../../errors.ts'
import type { OpenedFile } from '../../image/file.ts'
import { isNbdUri } from '../../nbd/uri.ts'
import { type ChainImage, closeChain, openChain } from '../../qemu-img/chain.ts'
import { nodeOf } from '../../qemu-img/chain-node.ts'
import { QemuImgError, reasonOf } from '../../qemu-img/messages.ts'
import { type OpenOptions, openSource } from '../../source/open.ts'
import { SourceNode } from './source-node.ts'

/** One of two disks that are compared. */
export interface OpenedSide {
  /** As messages name it. */
  name: string
  node: BlockNode
  /** What is read. */
  files: readonly SourceIdentity[]
  close(): Promise<void>
}

export interface SideOptions extends Pick<OpenOptions, 'connections' | 'timeoutMs' | 'signal'> {
  /** Default: recognised by the magic. */
  format?: 'raw' | 'qcow2'
  /** Others may be writing to it. */
  forceShare?: boolean
  /** Directories below which files named inside images may be opened, besides their own. */
  allowPaths?: readonly string[]
  /** The format of backing files whose images do not record it. */
  backingFormat?: 'raw' | 'qcow2'
}

/** Opens two disks for as long as something is done with them. */
export async function withSides<T>(
  a: Parameters<typeof openSide>,
  b: Parameters<typeof openSide>,
  use: (sides: [OpenedSide, OpenedSide]) => Promise<T>,
): Promise<T> {
  const first = await openSide(...a)
  try {
    const second = await openSide(...b)
    try {
      return await use([first, second])
    } finally {
      await second.close()
    }
  } finally {
    await first.close()
  }
}

/**
 * Opens a disk to be compared: an image with its chain, or an export of an NBD server.
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED, IN_USE, IO
 */
async function openSide(name: string, options: SideOptions): Promise<OpenedSide> {
  if (isNbdUri(name)) return await openExport(name, options)
  const image = await openImage(name, options)
  return { name, node: nodeOf(image), files: filesOf(image), close: () => closeChain(image) }
}

/** Of an image and all that it builds on. */
function filesOf(top: ChainImage): OpenedFile[] {
  const files: OpenedFile[] = []
  for (let image: ChainImage | undefined = top; image; image = image.backing) {
    files.push(image.file)
    if (image.dataFile) files.push(image.dataFile.file)
  }
  return files
}

async function openExport(
  uri: string,
  { format, connections, timeoutMs, signal }: SideOptions,
): Promise<OpenedSide> {
  const source = await openSource(uri, { format, connections, timeoutMs, signal })
  const node = new SourceNode(source)
  return {
    name: source.name,
    node,
    files: source.files,
    async close() {
      // It may still wait for the server.
      source.interrupt?.()
      await node.close()
      await source.close()
    },
  }
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
    throw reasonOf(error) ?? new BackupError(error.code, name, error.message, { cause: error })
  }
}
