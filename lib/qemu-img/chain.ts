import { BackupError } from '../errors.ts'
import { requireDataFile } from '../format/qcow2/validate.ts'
import type { OpenedFile } from '../image/file.ts'
import { type Passed, passGate, type Role } from '../image/gate.ts'
import { fullName } from './filename.ts'
import {
  BlockError,
  type OpenImage,
  type OpenImageOptions,
  openHost,
  openNamed,
  openNode,
  requireDriver,
} from './open.ts'
import { describeImageError, describeOpenError } from './strerror.ts'

/** How an image is opened with all that it builds on. */
export interface OpenChainOptions extends OpenImageOptions {
  /** Directories below which files named inside images may be opened, besides their own. */
  allowPaths?: readonly string[]
  /** The format of a backing file whose image does not record one. */
  backingFormat?: string
}

/** A file that holds the data of an image. */
export interface DataFile {
  /** As QEMU names it. */
  filename: string
  file: OpenedFile
}

/** An image that can be read, open with all that it builds on. */
export interface ChainImage extends OpenImage {
  /** What its data clusters are in, if not in its own file. */
  readonly dataFile?: DataFile
  readonly backing?: ChainImage
}

/** An image that is named in the one above it. */
interface Named {
  /** As QEMU names it. */
  name: string
  /** Where it is; undefined if it is the user's. */
  passed?: Passed
  format?: string
}

/** Most images of a chain; real ones have some dozens, and libvirt stops at 200. */
const MAX_DEPTH = 256
const NO_FORMAT = 'its format is not recorded, and not guessed'

/**
 * Opens an image to read it, with its data file and the images below it, as `qemu-img map` does and
 * in its words. Every name found inside an image goes through the gate, and no format is guessed but
 * that of the file that the user named.
 * @param name as the user gave it
 * @throws QemuImgError; no file stays open then
 */
export async function openChain(name: string, options: OpenChainOptions = {}): Promise<ChainImage> {
  return await openNamed(name, () => openFrom({ name, format: options.format }, options, new Set()))
}

/** Closes the files of an image and of all below it. */
export async function closeChain(top: ChainImage): Promise<void> {
  for (let image: ChainImage | undefined = top; image; image = image.backing) {
    await image.file.handle.close()
    await image.dataFile?.file.handle.close()
  }
}

/** @param seen identities of the images above */
async function openFrom(
  { name, passed, format }: Named,
  options: OpenChainOptions,
  seen: Set<string>,
): Promise<ChainImage> {
  const image: ChainImage = await openNode(name, { ...options, format }, passed?.real)
  const opened: OpenedFile[] = [image.file]
  try {
    requireNew(image, seen)
    const path = passed?.path ?? image.filename
    const dataFile = await openDataFile(image, path, options)
    if (dataFile) opened.push(dataFile.file)
    const named = image.qcow2?.header.backingFile
    if (named === undefined) return { ...image, dataFile }
    const backing = await openBacking(named, image, path, options, seen)
    return { ...image, dataFile, backing }
  } catch (error) {
    for (const { handle } of opened) await handle.close()
    throw error
  }
}

async function openBacking(
  named: string,
  image: OpenImage,
  path: string,
  options: OpenChainOptions,
  seen: Set<string>,
): Promise<ChainImage> {
  try {
    const format = requireBackingFormat(image.qcow2?.header.extensions.backingFormat, options)
    const name = fullName(named, image.filename)
    const passed = await judge(named, name, path, 'backing file', options)
    return await openFrom({ name, passed, format }, { ...options, writable: false }, seen)
  } catch (error) {
    if (!(error instanceof BlockError)) throw error
    throw new BlockError(`Could not open backing file: ${error.message}`, { cause: error })
  }
}

/**
 * The format of a backing file, which is never guessed.
 * @param recorded in the image above it
 * @throws BlockError
 */
export function requireBackingFormat(
  recorded: string | undefined,
  { backingFormat }: OpenChainOptions,
): string {
  const format = recorded || backingFormat
  if (format) return requireDriver(format)
  const reason = new BackupError('NOT_ALLOWED', 'backing file', NO_FORMAT, {
    hint: 'backingFormat',
  })
  throw new BlockError(NO_FORMAT, { cause: reason })
}

async function openDataFile(
  image: OpenImage,
  path: string,
  options: OpenChainOptions,
): Promise<DataFile | undefined> {
  if (!image.qcow2) return undefined
  const { header } = image.qcow2
  try {
    requireDataFile(header, image.file.path)
  } catch (error) {
    throw new BlockError(describeImageError(error as BackupError), { cause: error })
  }
  if (header.cryptMethod !== 0) {
    throw new BlockError("Parameter 'encrypt.key-secret' is required for cipher")
  }
  if (!header.externalDataFile) return undefined
  const named = header.extensions.dataFile as string
  const filename = fullName(named, image.filename)
  const { real } = await judge(named, filename, path, 'data file', options)
  const file = await openHost(filename, real, options)
  if (file.identity !== image.file.identity) return { filename, file }
  await file.handle.close()
  throw new BlockError(`'${filename}' is the data file of itself`)
}

/**
 * Lets the gate judge a file that an image names.
 * @param filename QEMU's name for it
 * @throws BlockError
 */
export async function judge(
  named: string,
  filename: string,
  image: string,
  role: Role,
  { allowPaths = [] }: OpenChainOptions,
): Promise<Passed> {
  return await passGate(named, image, role, allowPaths).catch((error) => {
    throw new BlockError(describeOpenError(filename, error), { cause: error })
  })
}

function requireNew({ file, filename }: OpenImage, seen: Set<string>): void {
  if (seen.has(file.identity)) {
    throw new BlockError(`'${filename}' comes again as a backing file of itself`)
  }
  seen.add(file.identity)
  if (seen.size > MAX_DEPTH) throw new BlockError(`the chain has more than ${MAX_DEPTH} images`)
}
