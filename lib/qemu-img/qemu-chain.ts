/** Opening images as qemu-img does: lib/image/image-chain.ts with QEMU's rules, and in its words. */
import { type BackupError, throwIfAborted } from '../errors.ts'
import { stat } from '../files.ts'
import { PROBE_BYTES, probeAsQemu } from '../format/probe.ts'
import { SECTOR_SIZE } from '../format/qcow2/constants.ts'
import { readAt } from '../format/read.ts'
import type { OpenFile } from '../image/file.ts'
import {
  type ChainImage,
  type ChainOptions,
  type ChainPlace,
  closeImages,
  type Format,
  MAX_DEPTH,
  openImages,
  walkChain,
} from '../image/image-chain.ts'
import { READING, SHARED_READING, type Use, WRITING } from '../image/locks.ts'
import { roundUp } from '../units.ts'
import { fullName, hasProtocol } from './filename.ts'
import { QemuImgError, warningLine } from './messages.ts'
import { type Qcow2Metadata, readMetadata } from './metadata.ts'
import { describeImageError, describeOpenError } from './strerror.ts'

/** How an image is opened, alone or with all that it builds on. */
export interface OpenChainOptions {
  /** Default: recognised by its first bytes. */
  format?: string
  /** To check it: faults that a check reports are accepted, and snapshots are not read. Default: no. */
  checking?: boolean
  /** Receives qemu-img's messages on stderr about an image that it opens all the same. */
  warn?: (text: string) => void
  /** Other processes may have it open for writing. Default: not. */
  forceShare?: boolean
  /** To be written; no other process may have it open then. Default: only to be read. */
  writable?: boolean
  /** Directories below which files named inside images may be opened, besides their own. */
  allowPaths?: readonly string[]
  /** The format of a backing file whose image does not record one. */
  backingFormat?: string
  /** Ends opening it. */
  signal?: AbortSignal
}

/** How an image is opened to read its content. */
export interface OpenContentOptions extends OpenChainOptions {
  /** Id or name of an internal snapshot: the image is read as it was then, and is of that size. */
  snapshot?: string
}

/** What only some commands want of an image that they open. */
export interface ChainDetails {
  /** Also open what it builds on. Default: yes. */
  backingFiles?: boolean
  /** How messages name it. Default: in quotes. */
  named?: string
  /** What is done with the files. Default: as QEMU has it, which lets others write to raw images. */
  use?: ChainOptions['use']
}

/** An image, open with all that it builds on. */
export interface OpenChain {
  /** Top first. */
  readonly images: readonly ChainImage[]
  /** Of the topmost image, if it is qcow2. */
  readonly qcow2?: Qcow2Metadata
}

/**
 * Opens an image to read it, with its data file and the images below it, as `qemu-img map` does and
 * in its words. Every name found inside an image goes through the gate, and no format is guessed but
 * that of the file that the user named.
 * @param name as the user gave it
 * @throws QemuImgError; no file stays open then
 */
export async function openChain(
  name: string,
  options: OpenContentOptions = {},
  { backingFiles, named = `'${name}'`, use }: ChainDetails = {},
): Promise<OpenChain> {
  const path = pathOf(name, options, named)
  let qcow2: Qcow2Metadata | undefined
  const images = await openImages(path, {
    ...rulesOf(options, (metadata, depth) => {
      if (depth === 0) qcow2 = metadata
    }),
    snapshot: options.snapshot,
    backingFiles,
    ...(use && { use }),
    reword(error, place) {
      const below = 'Could not open backing file: '.repeat(place.depth)
      const writable = options.writable && place.depth === 0
      return cannotOpen(named, below + wordsOf(error, place, writable), error)
    },
  })
  for (const image of images) await warnOfOtherDataFile(image, options)
  return { images, qcow2 }
}

/** Says so where QEMU would take another data file: it looks for a relative name where it runs. */
async function warnOfOtherDataFile(
  { header, path, dataFile }: ChainImage,
  { warn }: OpenChainOptions,
): Promise<void> {
  const name = header?.extensions.dataFile
  if (!dataFile || !name || !warn || fullName(name, path) === name) return
  const other = await stat(name).catch(() => undefined)
  if (!other || `${other.dev}:${other.ino}` === dataFile.file.identity) return
  warn(warningLine(`data file '${dataFile.path}' is used, where QEMU uses '${name}'`))
}

/** Closes the files of an image and of all below it. */
export async function closeChain({ images }: OpenChain): Promise<void> {
  await closeImages(images)
}

/**
 * Opens an image and those below it one after the other, without their data files, as `qemu-img info
 * --backing-chain` does and in its words. Each is closed again when the next one is asked for.
 * @param name as the user gave it
 * @throws QemuImgError
 */
export async function* walkImages(
  name: string,
  options: OpenChainOptions = {},
): AsyncGenerator<{ image: ChainImage; qcow2?: Qcow2Metadata }> {
  const path = pathOf(name, options)
  let qcow2: Qcow2Metadata | undefined
  const rules: ChainOptions = {
    ...rulesOf(options, (metadata) => {
      qcow2 = metadata
    }),
    dataFiles: false,
    sameBy: 'path',
    reword(error, place) {
      if (place.step === 'loop') {
        return new QemuImgError(`Backing file '${place.path}' creates an infinite loop.`)
      }
      if (place.step === 'depth') {
        return new QemuImgError(`'${name}' has more than ${MAX_DEPTH} images in its chain`)
      }
      const named = `'${place.depth === 0 ? name : place.path}'`
      return cannotOpen(named, wordsOf(error, place), error)
    },
  }
  for await (const image of walkChain(path, rules)) {
    try {
      yield { image, qcow2 }
    } finally {
      await image.file.handle.close()
    }
  }
}

/** @param take receives the metadata of each image; undefined if it is raw */
function rulesOf(
  options: OpenChainOptions,
  take: (metadata: Qcow2Metadata | undefined, depth: number) => void,
): ChainOptions {
  const { format, backingFormat, allowPaths, writable, checking, warn, signal } = options
  return {
    format,
    backingFormat,
    allowPaths,
    writable,
    checking,
    onOpened: (file) => throwIfAborted(signal, file.path),
    recognise: recogniseAsQemu,
    use: (found, depth) => useOf(found, depth === 0 ? options : { ...options, writable: false }),
    async onImage({ file, header, path, format: found }, depth) {
      if (depth === 0 && writable && format === undefined && found === 'raw') {
        warn?.(guessedRaw(path))
      }
      take(header && (await readMetadata(file, header, options)), depth)
    },
  }
}

/**
 * QEMU's interpretation of a name that the user gave, before it looks for a file.
 * @throws QemuImgError
 */
function pathOf(
  name: string,
  { format, writable, forceShare }: OpenChainOptions,
  named = `'${name}'`,
): string {
  if (writable && forceShare) {
    throw cannotOpen(named, 'force-share=on can only be used with read-only images')
  }
  if (format !== undefined && format !== 'raw' && format !== 'qcow2') {
    throw cannotOpen(named, `Unknown driver '${format}'`)
  }
  let path = name
  if (hasProtocol(name)) {
    const protocol = name.slice(0, name.indexOf(':'))
    // Only files are read here, so QEMU's other protocols are not listed.
    if (protocol !== 'file') throw cannotOpen(named, `Unknown protocol '${protocol}'`)
    const rest = name.slice('file:'.length)
    path = hasProtocol(rest) ? `./${rest}` : rest
  }
  if (path === '') throw cannotOpen(named, "The 'file' block driver requires a file name")
  return path
}

/** The format that QEMU probes from a file's first bytes. */
export async function recogniseAsQemu(file: OpenFile): Promise<string> {
  const head = await readAt(file, 0, Math.min(PROBE_BYTES, roundUp(file.size, SECTOR_SIZE)))
  return probeAsQemu(head, file.path)
}

/** QEMU's use of an image of a format that it opens. */
function useOf(format: Format, { writable, forceShare }: OpenChainOptions): Use {
  if (writable) return WRITING
  // Metadata must not change while it is read; in a raw image there is none.
  return forceShare || format === 'raw' ? SHARED_READING : READING
}

function wordsOf(error: BackupError, { step, path }: ChainPlace, writable = false): string {
  // The system says so before QEMU looks what kind of file it is.
  if (writable && error.errno === 'EISDIR') return `Could not open '${path}': Is a directory`
  return step === 'open' ? describeOpenError(path, error) : describeImageError(error)
}

function cannotOpen(named: string, why: string, cause?: unknown): QemuImgError {
  return new QemuImgError(`Could not open ${named}: ${why}`, 1, { cause })
}

/** QEMU's warning where a guest could have made the image look like anything. */
function guessedRaw(filename: string): string {
  return (
    `WARNING: Image format was not specified for '${filename}' and probing guessed raw.\n` +
    '         Automatically detecting the format is dangerous for raw images, ' +
    'write operations on block 0 will be restricted.\n' +
    "         Specify the 'raw' format explicitly to remove the restrictions.\n"
  )
}
