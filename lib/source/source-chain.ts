import { argumentError, type Hint, throwIfAborted } from '../errors.ts'
import { inFile } from '../format/format-error.ts'
import { Qcow2Image } from '../format/qcow2/qcow2-image.ts'
import { requireActiveTable } from '../format/qcow2/validate.ts'
import type { OpenFile } from '../image/file.ts'
import {
  type ChainImage,
  type ChainOptions,
  closeImages,
  type Format,
  filesOf,
  openImages,
} from '../image/image-chain.ts'
import { READING, SHARED_READING } from '../image/locks.ts'
import { formatOf, noteOf, probeFile } from '../image/recognise.ts'
import type { TrustOptions } from '../imageio/client/trust.ts'
import type { NbdOptions } from '../nbd/export.ts'
import { type ImageBitmap, openBitmap } from './bitmaps/open-bitmap.ts'
import { looksPreallocated } from './holes.ts'
import type { Layer } from './layer.ts'
import { qcow2Layer } from './qcow2-layer.ts'
import { rawLayer } from './raw-layer.ts'

export type { ChainImage, Format } from '../image/image-chain.ts'

/** How a source is opened. */
export interface OpenOptions extends NbdOptions, TrustOptions {
  /** The image format; default: recognised by its magic. */
  format?: Format
  /** Directories below which files named inside images may be opened, besides their own. */
  allowPaths?: readonly string[]
  /** The format of a backing file whose image does not record one. */
  backingFormat?: Format
  /**
   * Read images that another process may be writing to; the data may be inconsistent. Default: they are
   * refused.
   */
  forceShare?: boolean
  /**
   * The dirty bitmap with the changes: of an image, a persistent one of its own; of an NBD
   * server, one that it exports as `qemu:dirty-bitmap:NAME`; of an imageio server, that of the ticket,
   * whatever the name.
   */
  bitmap?: string
  /**
   * Id or name of an internal snapshot of the topmost image: the disk is read as it was then, and is
   * of the size that it had then. An id is looked for first.
   */
  snapshot?: string
  /** Cancels opening it, and reading its mappings. */
  signal?: AbortSignal
}

/** How a source is opened for a caller that knows more of it. */
export interface KnowingOptions extends OpenOptions {
  /** Ask for holes in spite of `requestSize`: they are not taken on trust. */
  doubtsHoles?: boolean
}

/** How the images of a chain are opened. */
export interface OpenChainOptions extends OpenOptions {
  /**
   * Uses allowed to others of the image at a depth, the topmost being at 0: anything
   * (`true`), or only read; and with the file that its data is in. Default: as `forceShare` says.
   */
  shared?: (depth: number, isDataFile: boolean) => boolean
  /** By which the user says the topmost image's format; null: by none. Default: `format`. */
  formatOption?: Hint | null
  /** Read a file of an unsupported format as raw, without probing. Default: it is refused. */
  foreignAsRaw?: boolean
  /** See ChainOptions of lib/image/image-chain.ts. */
  onOpened?: ChainOptions['onOpened']
}

/** An image with all that it builds on, open. */
export interface Chain {
  /** Of the topmost image. */
  format: Format
  /** Top first. */
  layers: Layer[]
  /** The images of the chain. */
  images: ChainImage[]
  /** Every file that was opened. */
  files: OpenFile[]
  /** Those whose data clusters may lie in holes, by their index in `files`. */
  sparse: Map<number, OpenFile>
  /** The one that was asked for, of the topmost image. */
  bitmap?: ImageBitmap
  /** Caveats about the topmost image. */
  notes: readonly string[]
}

/**
 * Opens an image and its chain, to read the guest content.
 * @param path of the topmost image, which the user names, so it is opened wherever it lies
 * @throws BackupError BAD_IMAGE, BAD_BITMAP, UNSUPPORTED, NOT_ALLOWED, IN_USE, IO; no file stays open
 * then
 */
export async function openChain(path: string, options: OpenChainOptions): Promise<Chain> {
  const { format, backingFormat, allowPaths, forceShare = false, bitmap: name } = options
  const { shared = () => forceShare, signal } = options
  const { formatOption, foreignAsRaw = false, snapshot } = options
  if (snapshot !== undefined && name !== undefined) {
    throw argumentError('snapshot', 'cannot be combined with a bitmap, which goes on after it')
  }
  const notes: string[] = []
  const images = await openImages(path, {
    format,
    backingFormat,
    snapshot,
    allowPaths,
    async onOpened(file) {
      throwIfAborted(signal, file.path)
      await options.onOpened?.(file)
    },
    async recognise(file) {
      const probed = await probeFile(file)
      const note = noteOf(file.path, probed)
      if (note !== undefined) notes.push(note)
      if (foreignAsRaw && typeof probed !== 'string') return 'raw'
      return formatOf(file.path, probed, formatOption)
    },
    use: (_format, ...place) => (shared(...place) ? SHARED_READING : READING),
  })
  try {
    const note = images[0].snapshot?.note
    if (note !== undefined) notes.push(note)
    const bitmap = name === undefined ? undefined : await openBitmap(images, name)
    return { format: images[0].format, ...layersOf(images), images, bitmap, notes }
  } catch (error) {
    await closeImages(images)
    throw error
  }
}

/** Closes files; those that cannot be closed were only read. */
export async function closeAll(files: readonly OpenFile[]): Promise<void> {
  await Promise.allSettled(files.map((file) => file.handle.close()))
}

/**
 * Images of a chain as layers.
 * @throws BackupError BAD_IMAGE
 */
export function layersOf(
  images: readonly ChainImage[],
): Pick<Chain, 'layers' | 'files' | 'sparse'> {
  const files = filesOf(images)
  const sparse = new Map<number, OpenFile>()
  const layers = images.map(({ file, header, dataFile }) => {
    if (!header) return rawLayer(file, files.indexOf(file))
    inFile(file.path, () => requireActiveTable(header))
    const data = dataFile?.file ?? file
    const index = files.indexOf(data)
    if (dataFile || looksPreallocated(file, header.clusterSize)) sparse.set(index, data)
    return qcow2Layer(new Qcow2Image(file, header, data), index)
  })
  return { layers, files, sparse }
}
