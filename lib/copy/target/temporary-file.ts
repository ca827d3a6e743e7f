import { randomBytes } from 'node:crypto'
import {
  access,
  constants,
  descriptorPath,
  type FileHandle,
  link,
  lstat,
  lstatSync,
  open,
  pathBytes,
  rename,
  unlink,
  unlinkSync,
} from '../../files.ts'
import { identityOf } from '../../image/file.ts'
import { log } from '../../log.ts'
import { native } from '../../native.ts'
import { decodeText, encodeText } from '../../text.ts'
import { type Location, pathIn } from './location.ts'

/** Node has no constant for it; the same on all of Linux but alpha, parisc and sparc. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY
/** Errors of open(2) where the kernel or the file system has no O_TMPFILE. */
const NO_TMPFILE = ['ENOTSUP', 'EISDIR', 'EINVAL', 'ENOENT']
/** Errors of link(2) where the file system has no hard links. */
const NO_LINKS = ['EPERM', 'ENOTSUP', 'ENOSYS']
/** Errors of renameat2(2) where names cannot be exchanged. */
const NO_EXCHANGE = ['EINVAL', 'ENOSYS', 'ENOTSUP', 'EPERM']
/** A disk's content is private. */
const MODE = 0o600
/** Bytes of the target's name in a temporary one, which may have 255 in all. */
const NAME_BYTES = 200

/** Files of ours with a temporary name, which process.exit() must not leave behind. */
const named = new Set<{ path: string; identity: string }>()
process.on('exit', () => {
  for (const { path, identity } of named) {
    try {
      if (identityOf(lstatSync(path)) === identity) unlinkSync(path)
    } catch {
      // It was renamed in this moment.
    }
  }
})

/** The file at a name is not the one that was judged. */
export class Replaced extends Error {
  /** It is a directory now. */
  readonly isDirectory: boolean

  constructor(isDirectory: boolean) {
    super('another file has the name')
    this.isDirectory = isDirectory
  }
}

/**
 * A new file without its final name: one without any name (O_TMPFILE), which the kernel removes
 * however the process ends; where O_TMPFILE is unavailable, one with a temporary name. Methods throw
 * the errors of the system calls.
 */
export class TemporaryFile {
  /** Open for reading and writing. */
  readonly handle: FileHandle
  readonly #location: Location
  readonly #identity: string
  /** The temporary name: of the new file, or, once they changed places, of the old one. */
  #name: string | undefined
  #listed: { path: string; identity: string } | undefined
  /** The call that gave the file its final name; undefined while it has none. */
  #placed: 'linked' | 'renamed' | { old: string } | undefined

  /** Makes one in the directory of a location, from which it can take that name. */
  static async in(location: Location): Promise<TemporaryFile> {
    const unnamed = await openUnnamed(location)
    const name = unnamed ? undefined : temporaryName(location.name)
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_EXCL
    log('target', () => {
      const how = unnamed ? 'without a name (O_TMPFILE)' : `as ${name}: no O_TMPFILE here`
      return `${location.path}: made ${how}`
    })
    const handle = unnamed ?? (await open(pathIn(location, name), flags, MODE))
    return new TemporaryFile(
      handle,
      location,
      identityOf(await handle.stat({ bigint: true })),
      name,
    )
  }

  private constructor(handle: FileHandle, location: Location, identity: string, name?: string) {
    this.handle = handle
    this.#location = location
    this.#identity = identity
    this.#setName(name)
  }

  /** See SourceFile.identity. */
  get identity(): string {
    return this.#identity
  }

  /**
   * Gives the file its final name.
   * @param old identity of the file that has the name and is to be replaced, atomically; undefined: none
   * has it
   * @throws EEXIST if something has the name that should be free; Replaced if something else has it
   */
  async place(old?: string): Promise<void> {
    if (old !== undefined && (await this.#isThere(old))) return await this.#replace(old)
    try {
      await this.#link()
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
      const stats = await lstatIfAny(pathIn(this.#location))
      throw stats?.isDirectory() ? new Replaced(true) : error
    }
  }

  /**
   * Undoes the final name, and gives it back to the file that had it before.
   * @returns false if that is gone: where names cannot be exchanged
   */
  async revert(): Promise<boolean> {
    const placed = this.#placed
    if (placed === undefined) return true
    if (placed === 'renamed') return false
    const final = pathIn(this.#location)
    if ((await identityAt(final)) !== this.#identity) throw new Replaced(false)
    if (placed === 'linked') {
      await unlink(final)
    } else {
      // The new file has the temporary name again, which discard() removes.
      native().exchangeNames(pathBytes(this.#temporary()), pathBytes(final))
      this.#list()
    }
    this.#placed = undefined
    return true
  }

  /** Removes the replaced file. */
  async removeOld(): Promise<void> {
    if (typeof this.#placed !== 'object') return
    const { old } = this.#placed
    if ((await identityAt(this.#temporary())) !== old) throw new Replaced(false)
    await unlink(this.#temporary())
    this.#setName(undefined)
    this.#placed = 'renamed'
  }

  /**
   * Closes the file, and removes it unless it has its final name. The replaced file stays where
   * it is. Never fails.
   */
  async discard(): Promise<void> {
    if (this.#placed === undefined) await this.#unlink().catch(() => {})
    await this.handle.close().catch(() => {})
  }

  /** Name of the replaced file until removeOld; undefined if it is not kept. */
  get keptName(): string | undefined {
    return typeof this.#placed === 'object' ? this.#name : undefined
  }

  async #link(): Promise<void> {
    const final = pathIn(this.#location)
    if (this.#name === undefined) {
      native().linkFile(this.handle.fd, pathBytes(final))
      this.#placed = 'linked'
      return
    }
    try {
      await link(this.#temporary(), final)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (!NO_LINKS.includes(code!)) throw error
      await refuseExisting(final)
      await this.#rename()
      this.#placed = 'linked'
      return
    }
    this.#placed = 'linked'
    await this.#unlink()
  }

  async #replace(old: string): Promise<void> {
    if (this.#name === undefined) {
      // An unnamed file can only take a free name: a temporary one first, for a moment.
      const name = temporaryName(this.#location.name)
      native().linkFile(this.handle.fd, pathBytes(pathIn(this.#location, name)))
      this.#setName(name)
    }
    if (!this.#exchange()) {
      // Best effort: the name may lead to another file in the next moment.
      await this.#isThere(old)
      await this.#rename()
      this.#placed = 'renamed'
      return
    }
    this.#unlist()
    this.#placed = { old }
    if ((await identityAt(this.#temporary())) === old) return
    // Another file had the name in this moment, and gets it back.
    await this.revert()
    throw new Replaced(false)
  }

  /** @returns false if the file system cannot do that */
  #exchange(): boolean {
    const [temporary, final] = [this.#temporary(), pathIn(this.#location)]
    try {
      native().exchangeNames(pathBytes(temporary), pathBytes(final))
      return true
    } catch (error) {
      if (NO_EXCHANGE.includes((error as NodeJS.ErrnoException).code!)) return false
      throw error
    }
  }

  /**
   * Whether the file to be replaced still has the name; false if the name is free.
   * @throws Replaced if something else has
   */
  async #isThere(old: string): Promise<boolean> {
    const stats = await lstatIfAny(pathIn(this.#location))
    if (!stats) return false
    if (identityOf(stats) !== old) throw new Replaced(stats.isDirectory())
    return true
  }

  async #rename(): Promise<void> {
    await rename(this.#temporary(), pathIn(this.#location))
    this.#setName(undefined)
  }

  /** Removes the temporary name, if it is ours. */
  async #unlink(): Promise<void> {
    if (this.#name === undefined) return
    if ((await identityAt(this.#temporary())) === this.#identity) await unlink(this.#temporary())
    this.#setName(undefined)
  }

  #temporary(): string {
    return pathIn(this.#location, this.#name)
  }

  #setName(name: string | undefined): void {
    this.#unlist()
    this.#name = name
    if (name !== undefined) this.#list()
  }

  #list(): void {
    this.#listed = { path: this.#temporary(), identity: this.#identity }
    named.add(this.#listed)
  }

  #unlist(): void {
    if (this.#listed) named.delete(this.#listed)
    this.#listed = undefined
  }
}

async function openUnnamed({ directory }: Location): Promise<FileHandle | undefined> {
  let handle: FileHandle
  try {
    handle = await open(descriptorPath(directory), constants.O_RDWR | O_TMPFILE, MODE)
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

/** Without hard links, checking first is the best that can be done. */
async function refuseExisting(path: string): Promise<void> {
  if (!(await lstatIfAny(path))) return
  throw Object.assign(new Error(`${path} exists`), { code: 'EEXIST' })
}

async function lstatIfAny(path: string) {
  try {
    return await lstat(path)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

async function identityAt(path: string): Promise<string | undefined> {
  const stats = await lstatIfAny(path)
  return stats && identityOf(stats)
}

/** `.NAME.RANDOM.partial`. */
function temporaryName(name: string): string {
  const short = decodeText(encodeText(name).subarray(0, NAME_BYTES))
  return `.${short}.${randomBytes(6).toString('hex')}.partial`
}
