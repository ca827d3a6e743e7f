import { BackupError } from '../errors.ts'
import { probe } from '../format/probe.ts'
import { badImage, quoted, unsupported } from '../format/qcow2/fields.ts'
import type { Qcow2Header } from '../format/qcow2/header.ts'
import { Qcow2Image, readHeader } from '../format/qcow2/image.ts'
import { readAt } from '../format/read.ts'
import type { OpenedFile, OpenFile } from '../image/file.ts'
import { type Passed, passGate } from '../image/gate.ts'
import { lockOpened, READING, SHARED_READING } from '../image/locks.ts'
import type { NbdOptions } from '../nbd/export.ts'
import { type ImageBitmap, openBitmap } from './bitmaps/open.ts'
import { looksPreallocated } from './holes.ts'
import type { Layer } from './layer.ts'
import { qcow2Layer } from './qcow2.ts'
import { rawLayer } from './raw.ts'

/** The formats that can be read. */
export type Format = 'raw' | 'qcow2'

/** How a source is opened. */
export interface OpenOptions extends NbdOptions {
  /** The image format; default: recognised by its magic. */
  format?: Format
  /** Directories below which files named inside images may be opened, besides their own. */
  allowPaths?: readonly string[]
  /** The format of a backing file whose image does not record one. */
  backingFormat?: Format
  /**
   * Read images that another process may be writing to, whatever comes of it. Default: they are
   * refused.
   */
  forceShare?: boolean
  /**
   * The dirty bitmap that tells what changed: of an image, a persistent one of its own; of an NBD
   * server, one that it exports as `qemu:dirty-bitmap:NAME`.
   */
  bitmap?: string
  /** Ends what looks up where the bytes of the disk are. */
  signal?: AbortSignal
}

/** An image of a chain by itself. */
export interface ChainImage {
  /** By which the user or the image above named it, relative to the working directory. */
  path: string
  file: OpenedFile
  /** Undefined if it is raw. */
  header?: Qcow2Header
}

/** An image with all that it builds on, open. */
export interface Chain {
  /** Of the topmost image. */
  format: Format
  /** Top first. */
  layers: Layer[]
  /** The same images. */
  images: ChainImage[]
  /** Every file that was opened. */
  files: OpenedFile[]
  /** Those whose data clusters may lie in holes, by their index in `files`. */
  sparse: Map<number, OpenedFile>
  /** The one that was asked for, of the topmost image. */
  bitmap?: ImageBitmap
}

/**
 * Most images of a chain. Each costs a file descriptor or two and some hundred KiB of tables; real
 * chains have some dozens of images, and libvirt stops at 200.
 */
const MAX_DEPTH = 256

/**
 * Opens an image and its chain. Every name found inside an image goes through the gate, and
 * nothing is opened but by `open`. Whatever fails, no file stays open.
 * @param path of the topmost image, which the user names, so it is opened wherever it lies
 * @throws BackupError BAD_IMAGE, BAD_BITMAP, UNSUPPORTED, NOT_ALLOWED, IN_USE, IO
 */
export async function openChain(
  path: string,
  options: OpenOptions,
  open: OpenFile,
): Promise<Chain> {
  const opening = new Opening(options, open)
  try {
    return await opening.run(path)
  } catch (error) {
    await closeAll(opening.files)
    throw error
  }
}

/** Closes files; those that cannot be closed were only read. */
export async function closeAll(files: readonly OpenedFile[]): Promise<void> {
  await Promise.allSettled(files.map((file) => file.handle.close()))
}

/** An image to open next. */
interface Backing extends Passed {
  format: Format
}

class Opening {
  readonly files: OpenedFile[] = []
  readonly #layers: Layer[] = []
  readonly #images: ChainImage[] = []
  readonly #sparse = new Map<number, OpenedFile>()
  readonly #seen = new Set<string>()
  readonly #options: OpenOptions
  readonly #open: OpenFile

  constructor(options: OpenOptions, open: OpenFile) {
    this.#options = options
    this.#open = open
  }

  async run(path: string): Promise<Chain> {
    const top = await this.#openFile(path)
    const format = this.#options.format ?? probe(await readAt(top, 0, Math.min(4, top.size)))
    let backing = await this.#addLayer(top, path, format)
    while (backing) {
      const file = await this.#openFile(backing.real)
      backing = await this.#addLayer(file, backing.path, backing.format)
    }
    const name = this.#options.bitmap
    const bitmap = name === undefined ? undefined : await openBitmap(this.#images, name)
    return {
      format,
      layers: this.#layers,
      images: this.#images,
      files: this.files,
      sparse: this.#sparse,
      bitmap,
    }
  }

  async #openFile(path: string): Promise<OpenedFile> {
    const opened = await this.#open(path)
    const index = this.files.push(opened) - 1
    const use = this.#options.forceShare ? SHARED_READING : READING
    const file = await lockOpened(opened, use, path)
    this.files[index] = file
    return file
  }

  /**
   * Adds the layer of an open image; returns its backing file.
   * @param path by which the image was named
   */
  async #addLayer(file: OpenedFile, path: string, format: Format): Promise<Backing | undefined> {
    if (this.#seen.has(file.identity)) {
      throw badImage(file.path, 'comes again as a backing file of itself')
    }
    this.#seen.add(file.identity)
    if (this.#seen.size > MAX_DEPTH) {
      throw unsupported(file.path, `is below a backing chain of ${MAX_DEPTH} images, the most`)
    }
    if (format === 'raw') {
      this.#layers.push(rawLayer(file, this.files.indexOf(file)))
      this.#images.push({ path, file })
      return undefined
    }
    const header = await readHeader(file)
    this.#images.push({ path, file, header })
    const external = header.externalDataFile
    const data = external ? await this.#openDataFile(file, header, path) : file
    const index = this.files.indexOf(data)
    this.#layers.push(qcow2Layer(new Qcow2Image(file, header, data), index))
    if (external || looksPreallocated(file, header.clusterSize)) this.#sparse.set(index, data)
    return header.backingFile ? this.#backing(header.backingFile, header, path) : undefined
  }

  async #openDataFile(file: OpenedFile, header: Qcow2Header, path: string): Promise<OpenedFile> {
    const name = header.extensions.dataFile as string
    const { real } = await passGate(name, path, 'data file', this.#options.allowPaths ?? [])
    const data = await this.#openFile(real)
    if (data.identity === file.identity) throw badImage(path, 'its data file is the image itself')
    return data
  }

  async #backing(name: string, header: Qcow2Header, path: string): Promise<Backing> {
    const passed = await passGate(name, path, 'backing file', this.#options.allowPaths ?? [])
    const format = header.extensions.backingFormat || this.#options.backingFormat
    if (!format) {
      throw new BackupError(
        'NOT_ALLOWED',
        path,
        `does not record the format of its backing file ${quoted(name)}, and formats are not guessed`,
        { hint: 'backingFormat' },
      )
    }
    if (format !== 'raw' && format !== 'qcow2') {
      throw unsupported(path, `its backing format ${quoted(format)} is not supported`)
    }
    return { ...passed, format }
  }
}
