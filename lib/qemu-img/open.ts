import { BackupError } from '../errors.ts'
import { type LuksHeader, readLuksHeader } from '../format/luks.ts'
import { type Bitmap, bitmapsAreCurrent, readBitmaps } from '../format/qcow2/bitmaps.ts'
import { SECTOR_SIZE } from '../format/qcow2/constants.ts'
import { readFirstCluster } from '../format/qcow2/first-cluster.ts'
import { decodeHeader, type Qcow2Header } from '../format/qcow2/header.ts'
import { readSnapshots, type Snapshot } from '../format/qcow2/snapshots.ts'
import { readAt } from '../format/read.ts'
import { type OpenedFile, type OpenFile, openFile, openWritable } from '../image/file.ts'
import { lockOpened, READING, SHARED_READING, type Use, WRITING } from '../image/locks.ts'
import { roundUp } from '../units.ts'
import { requireLoadable } from './bitmaps.ts'
import { hasProtocol } from './filename.ts'
import { QemuImgError, warningLine } from './messages.ts'
import { PROBE_BYTES, probeFormat } from './probe.ts'
import { describeImageError, describeOpenError } from './strerror.ts'

/** How an image is opened. */
export interface OpenImageOptions {
  /** Default: recognised by its first bytes. */
  format?: string
  /** To check it: what a check may find is let pass, and snapshots are not read. Default: no. */
  checking?: boolean
  /** Takes what qemu-img prints on stderr about an image that it opens all the same. */
  warn?: (text: string) => void
  /** The image may be open elsewhere, for whatever it is. Default: not for writing. */
  forceShare?: boolean
  /** To be written. It then is nobody else's. Default: only to be read. */
  writable?: boolean
  /** How files are opened; for tests. */
  open?: OpenFile
}

/** What a qcow2 image says of itself. */
export interface Qcow2Metadata {
  header: Qcow2Header
  /** Not read for a check. */
  snapshots: Snapshot[]
  /** None where they are not current. */
  bitmaps: Bitmap[]
  /** Of one encrypted with LUKS. */
  luks?: LuksHeader
}

/** An image by itself, open: neither its backing file nor its data file is. */
export interface OpenImage {
  /** As QEMU names it. */
  readonly filename: string
  readonly format: 'raw' | 'qcow2'
  /** Virtual size, bytes. */
  readonly size: number
  readonly file: OpenedFile
  /** Of a qcow2 image. */
  readonly qcow2?: Qcow2Metadata
}

/**
 * Opens an image to describe it, as strictly as `qemu-img info` does and in its words.
 * @param name as the user gave it
 * @throws QemuImgError
 */
export async function openImage(name: string, options: OpenImageOptions = {}): Promise<OpenImage> {
  return await openNamed(name, () => openNode(name, options))
}

/** Opens what the user named; the error says so. */
export async function openNamed<T>(name: string, open: () => Promise<T>): Promise<T> {
  try {
    return await open()
  } catch (error) {
    if (!(error instanceof BlockError)) throw error
    throw new QemuImgError(`Could not open '${name}': ${error.message}`, 1, { cause: error })
  }
}

/** Why the block layer could not open something, in QEMU's words. */
export class BlockError extends Error {}

/**
 * Opens an image of a chain.
 * @param name QEMU's for it, as the image above or the user gave it
 * @param path where it is, if the gate has judged that
 * @throws BlockError
 */
export async function openNode(
  name: string,
  options: OpenImageOptions,
  path?: string,
): Promise<OpenImage> {
  const { format: wanted, writable, forceShare } = options
  if (writable && forceShare) {
    throw new BlockError('force-share=on can only be used with read-only images')
  }
  if (wanted !== undefined) requireDriver(wanted)
  const filename = filenameOf(name)
  const opened = await openHost(filename, path ?? filename, options)
  try {
    const formatOf = async (now: OpenedFile) =>
      requireDriver(wanted ?? probeFormat(await readHead(now)))
    const format = await formatOf(opened)
    const file = await lockOpened(opened, useOf(format, options), filename)
    // Which lock it is depends on the format, which somebody may have changed until it was ours.
    if ((await formatOf(file)) !== format) throw new BlockError('it was replaced meanwhile')
    if (writable && wanted === undefined && format === 'raw') options.warn?.(guessedRaw(filename))
    if (format === 'raw') {
      return { filename, format, size: roundUp(file.size, SECTOR_SIZE), file }
    }
    const qcow2 = await readMetadata(file, options)
    return { filename, format, size: qcow2.header.virtualSize, file, qcow2 }
  } catch (error) {
    await opened.handle.close()
    if (!(error instanceof BackupError)) throw error
    throw new BlockError(describeImageError(error), { cause: error })
  }
}

/**
 * Opens a file.
 * @throws BlockError
 */
export async function openHost(
  filename: string,
  path: string,
  { writable, open = writable ? openWritable : openFile }: OpenImageOptions,
): Promise<OpenedFile> {
  if (filename === '') throw new BlockError("The 'file' block driver requires a file name")
  return await open(path).catch((error) => {
    throw new BlockError(describeOpenError(filename, error), { cause: error })
  })
}

/** A name without the `file:` that it may have. */
function filenameOf(name: string): string {
  if (!hasProtocol(name)) return name
  const protocol = name.slice(0, name.indexOf(':'))
  // Nothing but files is read here. That QEMU has more of them is no reason to know their names.
  if (protocol !== 'file') throw new BlockError(`Unknown protocol '${protocol}'`)
  const rest = name.slice('file:'.length)
  return hasProtocol(rest) ? `./${rest}` : rest
}

/** @throws BlockError for a format that is not read here, as QEMU has it for one that it lacks */
export function requireDriver(format: string): 'raw' | 'qcow2' {
  if (format === 'raw' || format === 'qcow2') return format
  throw new BlockError(`Unknown driver '${format}'`)
}

/** What QEMU does to an image of a format that it opens. */
function useOf(format: 'raw' | 'qcow2', { writable, forceShare }: OpenImageOptions): Use {
  if (writable) return WRITING
  // Metadata must not change while it is read; in a raw image there is none.
  return forceShare || format === 'raw' ? SHARED_READING : READING
}

async function readHead(file: OpenedFile): Promise<Buffer> {
  return await readAt(file, 0, Math.min(PROBE_BYTES, roundUp(file.size, SECTOR_SIZE)))
}

async function readMetadata(file: OpenedFile, options: OpenImageOptions): Promise<Qcow2Metadata> {
  const { checking } = options
  const header = decodeHeader(await readFirstCluster(file), file.path, { checking })
  if (header.extensions.bitmaps && !bitmapsAreCurrent(header)) options.warn?.(outOfDate(header))
  const { luks: at } = header.extensions
  const luks = at && (await readLuksHeader(file, at.offset))
  const snapshots = checking ? [] : await readSnapshots(file, header)
  const bitmaps = await readBitmaps(file, header)
  await requireLoadable(file, header, bitmaps)
  return { header, snapshots, bitmaps, luks }
}

/** What QEMU prints where a guest could have made the image look like anything. */
function guessedRaw(filename: string): string {
  return (
    `WARNING: Image format was not specified for '${filename}' and probing guessed raw.\n` +
    '         Automatically detecting the format is dangerous for raw images, ' +
    'write operations on block 0 will be restricted.\n' +
    "         Specify the 'raw' format explicitly to remove the restrictions.\n"
  )
}

/** What QEMU prints of bitmaps that it therefore does not read; it forgets the last line feed. */
function outOfDate({ version }: Qcow2Header): string {
  const what =
    version < 3
      ? 'This qcow2 v2 image contains bitmaps, but they may have been modified by a program ' +
        'without persistent bitmap support; so now they must all be considered inconsistent'
      : 'a program lacking bitmap support modified this file, so all bitmaps are now considered ' +
        'inconsistent'
  return `${warningLine(what)}Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix.`
}
