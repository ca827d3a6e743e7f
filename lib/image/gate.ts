import { BackupError, ioError } from '../errors.ts'
import {
  absolute,
  access,
  constants,
  descriptorPath,
  type FileHandle,
  nameOf,
  O_PATH,
  open,
  realpath,
} from '../files.ts'
import { log } from '../log.ts'
import { quoted } from '../text.ts'
import { type FoundFile, procMissing, requireReadable } from './file.ts'

/** Role of a file that an image names. */
export type Role = 'backing file' | 'data file'

/** A file that was found together with the directory that its name is in. */
export interface PlacedFile extends FoundFile {
  /** By which the file was named, relative to the working directory. */
  readonly named: string
  /**
   * The directory to which names inside the file are relative, opened with O_PATH. It has the same
   * owner as the file.
   */
  readonly directory: FileHandle
}

/**
 * Finds a file that the user names, wherever it lies.
 * @throws BackupError IO, or UNSUPPORTED if it is neither a regular file nor a block device
 */
export async function findPlaced(path: string): Promise<PlacedFile> {
  let found: LookedUp
  try {
    found = await lookUp(path)
  } catch (error) {
    throw ioError(path, error)
  }
  try {
    await requireReadable({ path, ...found })
  } catch (error) {
    await letGo(found)
    throw error
  }
  return { path, named: path, ...found }
}

/** Closes the O_PATH handles, but not the files opened from them. */
export async function letGo({ handle, directory }: LookedUp): Promise<void> {
  await handle.close()
  await directory.close()
}

/**
 * Decides which files that images name may be followed. Images come from people who must not be able
 * to make us read other files of the host: only files that lie directly in the image's own directory
 * pass, and files anywhere below an allowed one. What counts is where a name leads in the end, so
 * `..` and symbolic links gain nothing. A name is looked up once, from the directory in which the
 * image itself was found, and the file found is the one judged: exchanging files and directories
 * meanwhile gains nothing either.
 */
export class Gate {
  readonly #allowPaths: readonly string[]
  /** The directories without links; resolved when the first name needs them. */
  #allowed: Promise<string[]> | undefined

  /** @param allowPaths directories below which any file may be opened */
  constructor(allowPaths: readonly string[] = []) {
    this.#allowPaths = allowPaths
  }

  /**
   * Finds a file that an image names.
   * @param name as in the image; relative to the image's directory, as in QEMU
   * @returns its `path` being the one without links
   * @throws BackupError NOT_ALLOWED; IO if an allowed file is not there; UNSUPPORTED for an allowed
   * one that is neither a regular file nor a block device
   */
  async find(name: string, image: PlacedFile, role: Role): Promise<PlacedFile> {
    const refuse = (why: string, hintValue?: string) => {
      log('gate', () => `${image.named}: refused its ${role} ${quoted(name)}: it ${why}`)
      return new BackupError('NOT_ALLOWED', image.named, `its ${role} ${quoted(name)} ${why}`, {
        hint: hintValue === undefined ? undefined : 'allowPaths',
        hintValue,
      })
    }
    // As QEMU sees it: a colon before any slash makes json:, nbd:, file: and so on.
    if (/^[^/]*:/.test(name)) throw refuse('is not a plain file name; protocols are not followed')
    const outside = (directory: string) => refuse("is outside the image's directory", directory)

    // Not path.join(), which would take `link/..` for nothing.
    const named = name.startsWith('/') ? name : directoryOf(image.named) + name
    let found: LookedUp
    try {
      found = await lookUp(name, image.directory)
    } catch (error) {
      // A name that leads nowhere is judged as written: a refusal must not reveal what exists outside.
      const text = name.startsWith('/') ? name : `${await nameOf(image.directory)}/${name}`
      const judged = absolute(text)
      if (await this.#allows(judged, image)) throw ioError(named, error)
      throw outside(parentOf(judged))
    }
    try {
      const path = await nameOf(found.handle)
      if (!(await this.#allows(path, image))) throw outside(parentOf(path))
      await requireReadable({ path, ...found })
      log('gate', () => {
        const below = this.#allowed === undefined ? 'in the directory of the image' : 'as allowed'
        return `${image.named}: followed its ${role} ${quoted(name)} to ${path}, ${below}`
      })
      return { path, named, ...found }
    } catch (error) {
      await letGo(found)
      throw ioError(named, error)
    }
  }

  /** @param file without links */
  async #allows(file: string, image: PlacedFile): Promise<boolean> {
    const directory = parentOf(file)
    // An image that was opened through a link has two directories: the link's, which QEMU's names
    // are relative to, and its own.
    if (directory === (await nameOf(image.directory))) return true
    if (directory === parentOf(await nameOf(image.handle))) return true
    this.#allowed ??= Promise.all(this.#allowPaths.map(realPath))
    return (await this.#allowed).some((real) => real === '/' || file.startsWith(`${real}/`))
  }
}

type LookedUp = Pick<PlacedFile, 'handle' | 'directory'>

/**
 * Opens a name, and the directory that it is in, with O_PATH.
 * @param from directory for relative names; default: the working directory
 */
async function lookUp(name: string, from?: FileHandle): Promise<LookedUp> {
  if (name === '') throw Object.assign(new Error('no name'), { code: 'ENOENT' })
  const start = from && !name.startsWith('/') ? `${descriptorPath(from)}/` : ''
  const last = name.lastIndexOf('/') + 1
  // The dot triggers automounts, which O_PATH alone does not.
  const path = `${start}${name.slice(0, last)}.`
  const directory = await open(path, O_PATH | constants.O_DIRECTORY)
  try {
    const handle = await open(`${descriptorPath(directory)}/${name.slice(last)}`, O_PATH)
    return { directory, handle }
  } catch (error) {
    const procIsThere = await access(descriptorPath(directory)).then(
      () => true,
      () => false,
    )
    await directory.close()
    throw procIsThere ? error : procMissing(name)
  }
}

/** The part of a path up to its last slash, that included. */
function directoryOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/') + 1)
}

/** The directory that an absolute path is in. */
function parentOf(path: string): string {
  return path.slice(0, Math.max(1, path.lastIndexOf('/')))
}

async function realPath(path: string): Promise<string> {
  return await realpath(path).catch((error) => {
    throw ioError(path, error)
  })
}
