import type { BlockNode } from '../../block-status/node.ts'
import type { SourceIdentity } from '../../copy/target/judge.ts'
import { unsupported } from '../../errors.ts'
import { isImageUrl, shownLocation } from '../../imageio/client/address.ts'
import { isNbdUri } from '../../nbd/uri.ts'
import { nodeOf } from '../../qemu-img/chain-node.ts'
import { type OpenOptions, openSource } from '../../source/open-source.ts'
import { closeAll, type OpenChainOptions, openChain } from '../../source/source-chain.ts'
import { SourceNode } from './source-node.ts'

/** One of two disks that are compared. */
export interface DiffSide {
  /** As messages name it. */
  name: string
  node: BlockNode
}

export interface OpenDiffSide extends DiffSide {
  /** The files read. */
  stores: readonly SourceIdentity[]
  close(): Promise<void>
}

export interface SideOptions extends Pick<OpenOptions, 'connections' | 'timeoutMs' | 'signal'> {
  /** Default: recognised by the magic. */
  format?: 'raw' | 'qcow2'
  /** See OpenChainOptions. */
  formatOption?: OpenChainOptions['formatOption']
  /**
   * Whether this process has locked the image at a depth of the chain for writing already; all others
   * are locked here against writers.
   */
  locked?: OpenChainOptions['shared']
  /** Directories below which files named inside images may be opened, besides their own. */
  allowPaths?: readonly string[]
  /** The format of backing files whose images do not record it. */
  backingFormat?: 'raw' | 'qcow2'
}

/** Opens two disks for as long as something is done with them. */
export async function withSides<T>(
  a: Parameters<typeof openSide>,
  b: Parameters<typeof openSide>,
  use: (sides: [OpenDiffSide, OpenDiffSide]) => Promise<T>,
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
async function openSide(name: string, options: SideOptions): Promise<OpenDiffSide> {
  if (isImageUrl(name)) {
    const why = 'a disk of an imageio server is not compared; back it up, and compare the backup'
    throw unsupported(shownLocation(name), why)
  }
  if (isNbdUri(name)) return await openExport(name, options)
  const { format, formatOption, allowPaths, backingFormat, locked: shared } = options
  const access = { format, formatOption, allowPaths, backingFormat, shared }
  const { images, files } = await openChain(name, access)
  return { name, node: nodeOf(images), stores: files, close: () => closeAll(files) }
}

async function openExport(
  uri: string,
  { format, connections, timeoutMs, signal }: SideOptions,
): Promise<OpenDiffSide> {
  const source = await openSource(uri, { format, connections, timeoutMs, signal })
  const node = new SourceNode(source)
  return {
    name: source.name,
    node,
    stores: source.stores,
    async close() {
      // It may still wait for the server.
      source.interrupt?.()
      await node.close()
      await source.close()
    },
  }
}
