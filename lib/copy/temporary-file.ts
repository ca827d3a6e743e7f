import { randomBytes } from 'node:crypto'
import { basename, dirname, join } from 'node:path'
import {
  access,
  constants,
  descriptorPath,
  type FileHandle,
  link,
  lstat,
  open,
  pathBytes,
  rename,
  unlink,
  unlinkSync,
} from '../files.ts'
import { native } from '../native.ts'
import { decodeText, encodeText } from '../text.ts'

/** Node has no constant for it; the same on all of Linux but alpha, parisc and sparc. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY
/** What open(2) answers where the kernel or the file system has no O_TMPFILE. */
const NO_TMPFILE = ['ENOTSUP', 'EISDIR', 'EINVAL', 'ENOENT']
/** What link(2) answers where the file system has no hard links. */
const NO_LINKS = ['EPERM', 'ENOTSUP', 'ENOSYS']
/** A disk's content is nobody else's business. */
const MODE = 0o600
/** Bytes of the target's name in a temporary one, which may have 255 in all. */
const NAME_BYTES = 200

/** Temporary names in use, which process.exit() must not leave behind. */
const names = new Set<string>()
process.on('exit', () => {
  for (const name of names) {
    try {
      unlinkSync(name)
    } catch {
      // It was renamed in this moment, or is not ours to remove any more.
    }
  }
})

/**
 * A new file without its final name: one without any name (O_TMPFILE), which the kernel removes
 * however the process ends; where that is not to be had, one with a temporary name. Methods throw
 * what the system calls throw.
 */
export class TemporaryFile {
  /** Open for reading and writing. */
  readonly handle: FileHandle
  /** Whose directory the file is in, and whose name a temporary name tells. */
  readonly #beside: string
  /** The temporary name the file has now. */
  #name: string | undefined

  /** Makes one in the directory of `path`, from which it can take that name. */
  static async beside(path: string): Promise<TemporaryFile> {
    const unnamed = await openUnnamed(dirname(path))
    if (unnamed) return new TemporaryFile(unnamed, path)
    const name = temporaryName(path)
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL
    return new TemporaryFile(await open(name, flags, MODE), path, name)
  }

  private constructor(handle: FileHandle, beside: string, name?: string) {
    this.handle = handle
    this.#beside = beside
    this.#setName(name)
  }

  /** Gives the file a name that nothing has; EEXIST if something does. */
  async linkTo(path: string): Promise<void> {
    if (this.#name === undefined) {
      native().linkFile(this.handle.fd, pathBytes(path))
      return
    }
    try {
      await link(this.#name, path)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (!NO_LINKS.includes(code!)) throw error
      await refuseExisting(path)
      await this.#rename(path)
    }
    await this.#unlink()
  }

  /** Gives the file a name, atomically in the place of whatever has it. */
  async replace(path: string): Promise<void> {
    if (this.#name === undefined) {
      // An unnamed file can only take a free name: a temporary one first, for a moment.
      const name = temporaryName(this.#beside)
      native().linkFile(this.handle.fd, pathBytes(name))
      this.#setName(name)
    }
    await this.#rename(path)
  }

  /** Closes the file, and removes it unless it has its final name. Never fails. */
  async discard(): Promise<void> {
    await this.#unlink().catch(() => {})
    await this.handle.close().catch(() => {})
  }

  async #rename(path: string): Promise<void> {
    await rename(this.#name!, path)
    this.#setName(undefined)
  }

  async #unlink(): Promise<void> {
    if (this.#name === undefined) return
    await unlink(this.#name)
    this.#setName(undefined)
  }

  #setName(name: string | undefined): void {
    if (this.#name !== undefined) names.delete(this.#name)
    if (name !== undefined) names.add(name)
    this.#name = name
  }
}

async function openUnnamed(directory: string): Promise<FileHandle | undefined> {
  let handle: FileHandle
  try {
    handle = await open(directory, constants.O_RDWR | O_TMPFILE, MODE)
  } catch (error) {
    if (NO_TMPFILE.includes((error as NodeJS.ErrnoException).code!)) return undefined
    throw error
  }
  try {
    // Its name will be given through this path. Where /proc is not mounted it is better known now
    // than at the end of a long copy.
    await access(descriptorPath(handle))
    return handle
  } catch {
    await handle.close()
    return undefined
  }
}

/** Without hard links nothing better is to be had than to look first. */
async function refuseExisting(path: string): Promise<void> {
  try {
    await lstat(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  throw Object.assign(new Error(`${path} exists`), { code: 'EEXIST' })
}

/** `.NAME.RANDOM.partial` beside `path`. */
function temporaryName(path: string): string {
  const name = decodeText(encodeText(basename(path)).subarray(0, NAME_BYTES))
  return join(dirname(path), `.${name}.${randomBytes(6).toString('hex')}.partial`)
}
