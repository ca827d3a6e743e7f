import { argumentError, BackupError, ioError } from '../../errors.ts'
import {
  access,
  constants,
  descriptorPath,
  type FileHandle,
  nameOf,
  O_PATH,
  open,
  readlink,
} from '../../files.ts'
import { identityOf, procMissing } from '../../image/file.ts'
import { native } from '../../native.ts'
import { decodeText } from '../../text.ts'

/**
 * A name in a directory that is held open: whatever happens to the path that led there, a file made,
 * compared, renamed and removed under the name is in this directory.
 */
export interface Location {
  /** As given, for messages. */
  readonly path: string
  /** Open for reading; to be synced. */
  readonly directory: FileHandle
  /** The directory's path without links when it was opened, for messages and for relative names. */
  readonly directoryPath: string
  /** In the directory; not that of a symbolic link. */
  readonly name: string
}

/** As many as the kernel follows. */
const MAX_LINKS = 40

const STICKY = 0o1000n
const OTHERS_WRITE = 0o002n

/** The path of a name in the location's directory, whatever path leads there by now. */
export function pathIn({ directory, name }: Location, other = name): string {
  return `${descriptorPath(directory)}/${other}`
}

/** Where a name is now: the location's path, unless that does not lead to its directory any more. */
export async function whereIs(location: Location): Promise<string> {
  const { path, directory, name } = location
  if (await leadsTo(path, location).catch(() => false)) return path
  return `${await nameOf(directory)}/${name}`
}

/**
 * Note about a file whose path does not lead to it any more: its directory was moved while it was made, a
 * link on the way was changed, or the path is that of a descriptor, whose file was replaced.
 * @param at where it is now
 * @param backing the backing file's name as the file records it
 */
export function movedNotes(path: string, at: string, backing?: string): string[] {
  if (at === path) return []
  const note = `${path}: does not lead to it any more; it is ${at}`
  // One in the same directory was moved along.
  const isFar = backing !== undefined && !backing.startsWith('/') && backing.includes('/')
  return [isFar ? `${note}, which names its backing file from where it was: ${backing}` : note]
}

async function leadsTo(path: string, { directory, name }: Location): Promise<boolean> {
  const now = await locate(path)
  try {
    const [a, b] = [
      await now.directory.stat({ bigint: true }),
      await directory.stat({ bigint: true }),
    ]
    return now.name === name && identityOf(a) === identityOf(b)
  } finally {
    await now.directory.close()
  }
}

/** Opens a name without following links and without side effects: O_PATH. */
export async function openEntry(path: string): Promise<FileHandle> {
  return await open(path, O_PATH | constants.O_NOFOLLOW)
}

/**
 * Finds where a path leads, through symbolic links, also if nothing is there yet, and opens the
 * directory there. Links are followed by the kernel's rule for sticky directories
 * (fs.protected_symlinks), whether the kernel has it enabled or not: in a sticky directory that
 * everybody may write to, only links owned by this process's user or the directory's owner.
 * @throws BackupError USAGE if the path is empty; BAD_TARGET if it can only name a directory, or if
 * a link on the way is not followed; IO if its directory is missing or cannot be searched or read
 */
export async function locate(path: string): Promise<Location> {
  if (path === '') throw argumentError('target', 'the name is empty')
  const walk = new Walk(path)
  try {
    const name = await walk.run()
    const directoryPath = await readlink(descriptorPath(walk.at))
    return { path, directory: await walk.reopened(directoryPath), directoryPath, name }
  } finally {
    await walk.close()
  }
}

/** A part of a path that leads nowhere else. */
function isNothing(part: string): boolean {
  return part === '' || part === '.'
}

class Walk {
  readonly #path: string
  #at: FileHandle | undefined
  #links = 0

  constructor(path: string) {
    this.#path = path
  }

  /** The directory that was reached. */
  get at(): FileHandle {
    return this.#at as FileHandle
  }

  /** @returns the last name; the directory it is in is `at` */
  async run(): Promise<string> {
    await this.#go(this.#path.startsWith('/') ? '/' : '.')
    await access(descriptorPath(this.at)).catch(() => {
      throw procMissing(this.#path)
    })
    const parts = this.#path.split('/')
    // The path followed so far, for messages.
    const gone: string[] = []
    for (;;) {
      const part = parts.shift() as string
      const isLast = parts.length === 0
      if (isLast && (isNothing(part) || part === '..')) {
        throw new BackupError('BAD_TARGET', this.#path, 'is a directory')
      }
      gone.push(part)
      if (isNothing(part)) continue
      const entry = await this.#open(part, parts.every(isNothing), gone.join('/'))
      if (!entry && !isLast) throw new BackupError('BAD_TARGET', this.#path, 'is a directory')
      if (!entry) return part
      let link: string | undefined
      try {
        link = await this.#linkTarget(entry, gone.join('/'))
      } catch (error) {
        await entry.close()
        throw error
      }
      if (link === undefined) {
        if (!isLast) await this.#enter(entry)
        else await entry.close()
        if (isLast) return part
        continue
      }
      await entry.close()
      if (link.startsWith('/')) await this.#go('/')
      gone.length = 0
      parts.unshift(...link.split('/'))
    }
  }

  /** Opens the directory that was reached once more, to be synced. */
  async reopened(shown: string): Promise<FileHandle> {
    try {
      return await open(descriptorPath(this.at), constants.O_RDONLY | constants.O_DIRECTORY)
    } catch (error) {
      throw ioError(shown, error)
    }
  }

  async close(): Promise<void> {
    await this.#at?.close()
  }

  async #go(path: string): Promise<void> {
    await this.#enter(await open(path, O_PATH | constants.O_DIRECTORY))
  }

  async #enter(directory: FileHandle): Promise<void> {
    await this.#at?.close()
    this.#at = directory
  }

  /** Undefined if nothing has the last name. */
  async #open(part: string, isLast: boolean, shown: string): Promise<FileHandle | undefined> {
    try {
      return await openEntry(`${descriptorPath(this.at)}/${part}`)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      if (code !== 'ENOENT') throw ioError(isLast ? this.#path : shown, error)
      if (isLast) return undefined
      throw new BackupError('IO', shown, 'no such directory', { cause: error, errno: 'ENOENT' })
    }
  }

  /** Target of a symbolic link; undefined for anything else. */
  async #linkTarget(entry: FileHandle, shown: string): Promise<string | undefined> {
    const stats = await entry.stat({ bigint: true })
    if (!stats.isSymbolicLink()) return undefined
    if (++this.#links > MAX_LINKS) {
      throw new BackupError('IO', this.#path, 'too many symbolic links', { errno: 'ELOOP' })
    }
    const directory = await this.at.stat({ bigint: true })
    const isShared = (directory.mode & STICKY) !== 0n && (directory.mode & OTHERS_WRITE) !== 0n
    const own = BigInt(process.geteuid?.() ?? 0)
    if (isShared && stats.uid !== own && stats.uid !== directory.uid) {
      const link = shown === this.#path ? '' : ` (${shown})`
      const why = `is a symbolic link of another user in a sticky directory, not followed${link}`
      throw new BackupError('BAD_TARGET', this.#path, why, { errno: 'EACCES' })
    }
    return decodeText(native().readLink(entry.fd))
  }
}
