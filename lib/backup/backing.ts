import { relative } from 'node:path'
import { type Location, pathIn } from '../copy/target/location.ts'
import { argumentError, BackupError, ioError } from '../errors.ts'
import { lstat, nameOf, stat } from '../files.ts'
import { MAX_BACKING_NAME } from '../format/qcow2/constants.ts'
import { identityOf, type OpenFile, requireUnchanged } from '../image/file.ts'
import type { Source } from '../source/source.ts'
import { type Chain, closeAll, type Format, openChain } from '../source/source-chain.ts'
import { encodeText } from '../text.ts'
import type { OpenOptions } from './types.ts'

/** The previous backup, open with its whole chain, and the name that an image over it records. */
export interface Backing {
  /** As given, for messages. */
  path: string
  /** The name to record. */
  name: string
  format: Format
  /** Virtual size, bytes. */
  size: number
  /** The backup with its backing chain. */
  chain: Chain
  /** Files of the whole chain. */
  files: readonly OpenFile[]
  /**
   * To be called right before the target gets its name.
   * @throws BackupError SOURCE_CHANGED if a file of the chain was replaced since it was opened, or
   * the name by which the target would find it leads elsewhere now; IO if it leads nowhere
   */
  checkUnchanged(): Promise<void>
  close(): Promise<void>
}

/**
 * Opens a previous backup as the backing file of a target.
 * @param options its format is qcow2, or `backingFormat`; never probed
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED, IN_USE or IO if it or its chain cannot be read;
 * BAD_TARGET if the target is one of its files or its name cannot be recorded
 */
export async function openBacking(
  path: string,
  target: Location,
  { allowPaths, backingFormat, forceShare, signal }: OpenOptions & { signal?: AbortSignal },
): Promise<Backing> {
  if (!path) throw argumentError('backing', 'missing; it names the previous backup')
  const chain = await openBackingChain(path, { allowPaths, backingFormat, forceShare, signal })
  const { format, files, layers } = chain
  try {
    await requireOther(target, path, files)
    const [file, ...others] = files
    const name = await recordedName(path, file, target)
    const place = placeOf(name, target)
    const checkUnchanged = async () => {
      await requireUnchanged(files)
      // The user's name may be a link; the name recorded is its target's.
      await requireInPlace(file, place)
      for (const other of others) await requireInPlace(other)
    }
    // Later changes of the name are found right before the target gets its own name.
    await requireInPlace(file, place)
    return {
      path,
      name,
      format,
      size: layers[0].size,
      chain,
      files,
      checkUnchanged,
      close: () => closeAll(files),
    }
  } catch (error) {
    await closeAll(files)
    throw error
  }
}

/**
 * Opens a previous backup with all that it builds on.
 * @throws BackupError as openBacking, but BAD_TARGET
 */
export async function openBackingChain(
  path: string,
  options: Pick<OpenOptions, 'allowPaths' | 'backingFormat' | 'forceShare'> & {
    signal?: AbortSignal
  },
): Promise<Chain> {
  const { backingFormat } = options
  const chain = await openChain(path, {
    ...options,
    formatOption: 'backingFormat',
    // A raw disk may begin like an image; only a qcow2 header is never accepted as a raw disk.
    foreignAsRaw: backingFormat === 'raw',
  })
  try {
    requireFormat(path, chain.format, backingFormat)
    return chain
  } catch (error) {
    await closeAll(chain.files)
    throw error
  }
}

/**
 * @throws BackupError USAGE if the backup changes with the disk: its content would not be what
 * the disk held when the bitmap began
 */
export function requireApart(source: Source, backing: Backing): void {
  const shared = backing.files.find((file) =>
    source.stores.some(({ identity }) => identity === file.identity),
  )
  if (!shared) return
  const file = shared.path === backing.path ? 'is' : `builds on ${shared.path}, which is`
  throw argumentError('backing', `${backing.path} ${file} part of the source, not a backup of it`)
}

function requireFormat(path: string, found: Format, said: Format = 'qcow2'): void {
  if (found === said) return
  const why =
    said === 'raw'
      ? 'looks like a qcow2 image, but its format was given as raw'
      : 'is not in qcow2 format'
  throw new BackupError('BAD_IMAGE', path, why, {
    hint: 'backingFormat',
    hintValue: said === 'raw' ? 'qcow2' : 'raw',
  })
}

/**
 * The target's backing file would be the file that has the name now.
 * @param place directory in which the name is resolved
 */
async function requireInPlace({ path, identity }: OpenFile, place = path): Promise<void> {
  const now = await stat(place).catch((error) => {
    throw ioError(path, error)
  })
  if (identityOf(now) === identity) return
  throw new BackupError('SOURCE_CHANGED', path, 'was replaced while an image was made over it')
}

async function requireOther(
  target: Location,
  path: string,
  files: readonly OpenFile[],
): Promise<void> {
  const there = await identityAt(target)
  for (const file of files) {
    if (file.identity !== there) continue
    const why = file.path === path ? 'is its own backing file' : `is a backing file of ${path}`
    throw new BackupError('BAD_TARGET', target.path, why)
  }
}

/**
 * The name by which the target finds the backup: relative to its own directory, so that both can be
 * moved together. It is that of the file which is open, without links: one named `latest` will lead
 * elsewhere tomorrow.
 */
async function recordedName(path: string, file: OpenFile, target: Location): Promise<string> {
  const absolute = await nameOf(file.handle).catch((error) => {
    throw ioError(path, error)
  })
  const near = plain(relative(target.directoryPath, absolute))
  // A device is opened by many names, in whose directories there is nothing.
  const names = (await isDevice(target)) ? [absolute] : [near, absolute]
  const name = names.find((one) => encodeText(one).length <= MAX_BACKING_NAME)
  if (name !== undefined) return name
  const why = `the name of ${path} is too long to be recorded, more than ${MAX_BACKING_NAME} bytes`
  throw new BackupError('BAD_TARGET', target.path, why)
}

/** Where a name that the target records leads from the target's directory. */
function placeOf(name: string, target: Location): string {
  return name.startsWith('/') ? name : pathIn(target, name)
}

/** The path in a form that QEMU does not parse as a protocol. */
function plain(path: string): string {
  return /^[^/]*:/.test(path) ? `./${path}` : path
}

async function isDevice(target: Location): Promise<boolean> {
  const stats = await lstat(pathIn(target)).catch(() => undefined)
  return stats?.isBlockDevice() ?? false
}

async function identityAt(target: Location): Promise<string | undefined> {
  const stats = await lstat(pathIn(target)).catch(() => undefined)
  return stats && identityOf(stats)
}
