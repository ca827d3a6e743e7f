/**
 * The one way in which an image is opened with all that it builds on: one probe, one gate, one rule
 * against loops, one set of locks, one descriptor per file.
 */

import { BackupError, badImage, unsupported, usageError } from '../errors.ts'
import { inFile } from '../format/format-error.ts'
import { SECTOR_SIZE } from '../format/qcow2/constants.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { loadHeader } from '../format/qcow2/qcow2-image.ts'
import { requireReadable } from '../format/qcow2/validate.ts'
import { log } from '../log.ts'
import { quoted } from '../text.ts'
import { roundUp } from '../units.ts'
import { type OpenFile, openFound } from './file.ts'
import { findPlaced, Gate, letGo, type PlacedFile } from './gate.ts'
import { type InternalSnapshot, readAtSnapshot } from './internal-snapshot.ts'
import { lockOpened, type Use } from './locks.ts'

/** The formats that can be read. */
export type Format = 'raw' | 'qcow2'

/** An image of a chain by itself. */
export interface ChainImage {
  /** By which the user or the image above named it, relative to the working directory. */
  readonly path: string
  readonly format: Format
  /** Virtual size, bytes. */
  readonly size: number
  readonly file: OpenFile
  /** Decoded header of a qcow2 image. */
  readonly header?: Qcow2Header
  /** The external data file, if the image has one. */
  readonly dataFile?: DataFile
  /** The internal snapshot that it is read by: `size` and the tables of `header` are of that. */
  readonly snapshot?: InternalSnapshot
}

/** A file that holds the data of an image. */
export interface DataFile {
  /** As `ChainImage.path`. */
  readonly path: string
  readonly file: OpenFile
}

/** Where in a chain something is done. */
export interface ChainPlace {
  /** Images above. */
  readonly depth: number
  /** As `ChainImage.path`. */
  readonly path: string
  /**
   * A file is looked up and opened, or its content is read; it is in the chain already; there are too many.
   */
  readonly step: 'open' | 'read' | 'loop' | 'depth'
}

/** How a chain is opened. */
export interface ChainOptions {
  /** Of the topmost image. Default: recognised by its content. */
  format?: string
  /** The format of backing files whose images do not record it. */
  backingFormat?: string
  /** Id or name of an internal snapshot of the topmost image, by which that is read. */
  snapshot?: string
  /** Directories below which files named inside images may be opened, besides their own. */
  allowPaths?: readonly string[]
  /** Open the topmost image to write to it too. Default: no. */
  writable?: boolean
  /** Accept faults in headers that a check reports. Default: no. */
  checking?: boolean
  /** Also open what the topmost image builds on. Default: yes. */
  backingFiles?: boolean
  /** Also open the files that data is in which is not in an image's own. Default: yes. */
  dataFiles?: boolean
  /** How a repeated image is recognised: it is the same file, or has the same name. */
  sameBy?: 'file' | 'path'
  /** The format assumed for a file without a known one. */
  recognise: (file: OpenFile) => Promise<string>
  /** The lock taken: our use of a file, and uses denied to others. */
  use: (format: Format, depth: number, isDataFile: boolean) => Use
  /** Called for each file when it was opened, before it is locked and anything of it is read. */
  onOpened?: (file: OpenFile) => Promise<void> | void
  /** Called for each image when its header was read, before anything that it names is opened. */
  onImage?: (image: ChainImage, depth: number) => Promise<void> | void
  /** Rewords a failure. */
  reword?: (error: BackupError, place: ChainPlace) => Error
}

/**
 * Maximum images of a chain. Each costs a file descriptor and some hundred KiB of tables; real chains
 * have some dozens of images, and libvirt stops at 200.
 */
export const MAX_DEPTH = 256

/**
 * Opens an image and its chain. Every name found inside an image goes through the gate, and no format
 * is guessed but that of the file that the user named. Whatever fails, no file stays open.
 * @param path of the topmost image, which the user names, so it is opened wherever it lies
 * @returns top first
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED, IN_USE, IO
 */
export async function openImages(path: string, options: ChainOptions): Promise<ChainImage[]> {
  const images: ChainImage[] = []
  const walk = walkChain(path, options)
  try {
    for await (const image of walk) images.push(image)
    return images
  } catch (error) {
    await closeImages(images)
    throw error
  }
}

/** Closes the files of images; those that cannot be closed were only read. */
export async function closeImages(images: readonly ChainImage[]): Promise<void> {
  await Promise.allSettled(filesOf(images).map((file) => file.handle.close()))
}

/** Every file that was opened: each image's own, followed by its data file. */
export function filesOf(images: readonly ChainImage[]): OpenFile[] {
  return images.flatMap(({ file, dataFile }) => (dataFile ? [file, dataFile.file] : [file]))
}

/**
 * The images of a chain as they are opened, top first; each belongs to the caller, who closes it.
 * @throws BackupError as openImages
 */
export async function* walkChain(
  path: string,
  options: ChainOptions,
): AsyncGenerator<ChainImage, void> {
  const walk = new ChainWalk(options)
  try {
    let image: ChainImage | undefined = await walk.first(path)
    while (image) {
      yield image
      image = await walk.next()
    }
  } finally {
    await walk.end()
  }
}

class ChainWalk {
  readonly #options: ChainOptions
  readonly #gate: Gate
  readonly #seen = new Set<string>()
  /** The image that was opened last, and where it was found. */
  #last: { image: ChainImage; placed: PlacedFile } | undefined
  #depth = 0

  constructor(options: ChainOptions) {
    this.#options = options
    this.#gate = new Gate(options.allowPaths)
  }

  async first(path: string): Promise<ChainImage> {
    const placed = await this.#try(path, 'open', () => findPlaced(path))
    if (this.#options.sameBy === 'path') this.#requireNew(path)
    return await this.#add(placed, this.#options.format)
  }

  /** The image below the last one. */
  async next(): Promise<ChainImage | undefined> {
    const above = this.#last
    const name = above?.image.header?.backingFile
    if (!above || name === undefined || name === '') return undefined
    if (this.#options.backingFiles === false) return undefined
    this.#depth++
    const { image, placed } = above
    const path = pathOf(name, image.path)
    if (this.#options.sameBy === 'path') await this.#try(path, 'loop', () => this.#requireNew(path))
    // Before it is opened: no more descriptors are taken than a chain may have.
    await this.#try(path, 'depth', () => this.#requireShort(path))
    const format = await this.#try(path, 'read', () => this.#backingFormat(image, name))
    const found = await this.#try(path, 'open', () => this.#gate.find(name, placed, 'backing file'))
    await this.end()
    return await this.#add(found, format)
  }

  /** Closes the directory used for names in the last image. */
  async end(): Promise<void> {
    const last = this.#last
    this.#last = undefined
    if (last) await letGo(last.placed)
  }

  async #add(placed: PlacedFile, format: string | undefined): Promise<ChainImage> {
    const opened: OpenFile[] = []
    try {
      const { named, path } = placed
      const writable = this.#depth === 0 && this.#options.writable
      const file = await this.#try(named, 'open', () => openFound(placed, writable, path))
      opened.push(file)
      await this.#try(named, 'read', () => this.#options.onOpened?.(file))
      if (this.#options.sameBy !== 'path') {
        await this.#try(named, 'loop', () => this.#requireNew(named, file))
      }
      const image = await this.#try(named, 'read', () => this.#read(file, named, format))
      const dataFile = await this.#openDataFile(image, placed)
      if (dataFile) opened.push(dataFile.file)
      this.#last = { image: { ...image, dataFile }, placed }
      return this.#last.image
    } catch (error) {
      for (const { handle } of opened) await handle.close()
      await letGo(placed)
      throw error
    }
  }

  async #read(opened: OpenFile, path: string, format: string | undefined): Promise<ChainImage> {
    const { use, recognise, checking, onImage } = this.#options
    const formatOf = async (file: OpenFile) => requireKnown(path, format ?? (await recognise(file)))
    const known = await formatOf(opened)
    const file = await lockOpened(opened, use(known, this.#depth, false), path)
    // The lock may depend on the format, which somebody may have changed until the lock was ours.
    if ((await formatOf(file)) !== known) throw replaced(path)
    let image: ChainImage
    if (known === 'raw') {
      image = { path, format: known, size: roundUp(file.size, SECTOR_SIZE), file }
    } else {
      const header = await loadHeader(file, { checking })
      image = { path, format: known, size: header.virtualSize, file, header }
    }
    log('image', () => {
      const why = format === undefined ? 'recognised by its content' : 'as it was said or recorded'
      return `${path}: opened as ${known}, ${why}; ${image.size} bytes, depth ${this.#depth}`
    })
    await onImage?.(image, this.#depth)
    const { snapshot } = this.#options
    return this.#depth > 0 || snapshot === undefined ? image : await atSnapshot(image, snapshot)
  }

  async #openDataFile(image: ChainImage, placed: PlacedFile): Promise<DataFile | undefined> {
    const { header } = image
    if (!header || this.#options.dataFiles === false) return undefined
    await this.#try(image.path, 'read', () =>
      inFile(image.file.path, () => requireReadable(header)),
    )
    if (!header.externalDataFile) return undefined
    const name = header.extensions.dataFile as string
    const path = pathOf(name, image.path)
    const found = await this.#try(path, 'open', () => this.#gate.find(name, placed, 'data file'))
    try {
      const opened = await this.#try(path, 'open', () => openFound(found))
      try {
        const file = await this.#try(path, 'read', async () => {
          if (opened.identity === image.file.identity) throw ownDataFile(image.path, path)
          await this.#options.onOpened?.(opened)
          return await lockOpened(opened, this.#options.use('raw', this.#depth, true), path)
        })
        return { path, file }
      } catch (error) {
        await opened.handle.close()
        throw error
      }
    } finally {
      await letGo(found)
    }
  }

  #backingFormat({ path, header }: ChainImage, name: string): Format {
    const format = header?.extensions.backingFormat || this.#options.backingFormat
    if (!format) throw unrecorded(path, name)
    if (format === 'raw' || format === 'qcow2') return format
    const why = `its backing format ${quoted(format)} is not supported`
    throw unsupported(path, why, `Unknown driver '${format}'`)
  }

  #requireNew(path: string, file?: OpenFile): void {
    const key = file?.identity ?? path
    if (this.#seen.has(key)) {
      const why = 'appears twice in its own backing chain'
      throw badImage(file?.path ?? path, why, `'${path}' ${why}`)
    }
    this.#seen.add(key)
  }

  #requireShort(path: string): void {
    if (this.#depth < MAX_DEPTH) return
    const why = `is too deep: a backing chain has at most ${MAX_DEPTH} images`
    throw unsupported(path, why, `the chain has more than ${MAX_DEPTH} images`)
  }

  async #try<T>(path: string, step: ChainPlace['step'], act: () => T | Promise<T>): Promise<T> {
    try {
      return await act()
    } catch (error) {
      throw error instanceof BackupError ? this.#reworded(error, path, step) : error
    }
  }

  #reworded(error: BackupError, path: string, step: ChainPlace['step']): Error {
    if (error.code === 'ABORTED') return error
    return this.#options.reword?.(error, { depth: this.#depth, path, step }) ?? error
  }
}

/** An image as it was at an internal snapshot. */
async function atSnapshot(image: ChainImage, idOrName: string): Promise<ChainImage> {
  const { file, header } = image
  if (!header) throw usageError(file.path, 'is raw and has no snapshots')
  const then = await readAtSnapshot(file, header, idOrName)
  log('image', () => `${file.path}: read as it was at snapshot ${quoted(then.snapshot.name)}`)
  return { ...image, ...then, size: then.header.virtualSize }
}

/** A name in an image as it is relative to the working directory, as QEMU has it. */
function pathOf(name: string, image: string): string {
  return name.startsWith('/') ? name : image.slice(0, image.lastIndexOf('/') + 1) + name
}

function requireKnown(path: string, format: string): Format {
  if (format === 'raw' || format === 'qcow2') return format
  throw unsupported(path, `format ${quoted(format)} is not supported`, `Unknown driver '${format}'`)
}

function replaced(path: string): BackupError {
  return new BackupError('SOURCE_CHANGED', path, 'was replaced while it was opened')
}

function unrecorded(path: string, name: string): BackupError {
  const why = `does not record the format of its backing file ${quoted(name)}, and formats are not guessed`
  const qemu = 'its format is not recorded, and not guessed'
  return new BackupError('NOT_ALLOWED', path, why, { qemu, hint: 'backingFormat' })
}

function ownDataFile(image: string, path: string): BackupError {
  const qemu = `'${path}' is the data file of itself`
  return badImage(image, 'its data file is the image itself', qemu)
}
