import { argumentError, BackupError, ioError, usageError } from '../../errors.ts'
import { stat } from '../../files.ts'
import { identityOf, type OpenFile, reopenWritable } from '../../image/file.ts'
import { lockFile, lockOpened, READING, WRITING } from '../../image/locks.ts'
import { requireApart } from '../../image/storage.ts'
import { type Chain, closeAll, type OpenOptions, openChain } from '../../source/source-chain.ts'

/** A chain of which nobody else writes to any image, and its base, open for writing. */
export interface ChainToCommit {
  chain: Chain
  /** The base by its index in the chain. */
  base: number
  /** The base's file, locked for writing; to be closed besides the chain. */
  file: OpenFile
}

type Access = Pick<OpenOptions, 'allowPaths' | 'backingFormat' | 'signal'>

/**
 * Opens a chain to commit images into one of them. Every image is locked before any of it is read
 * that counts; and the file written to is the one that the gate allowed, not its name.
 * @param path of the base; default: the image below the top
 * @throws BackupError USAGE if the base is not below the top; IN_USE, BAD_IMAGE, UNSUPPORTED,
 * NOT_ALLOWED, IO; BAD_TARGET if the base lies on the storage of
 * another image of the chain; SOURCE_CHANGED if images were replaced meanwhile
 */
export async function openToCommit(
  top: string,
  path: string | undefined,
  access: Access,
): Promise<ChainToCommit> {
  const identity = await identityOfBase(top, path, access)
  const writable: OpenFile[] = []
  const onOpened = async (opened: OpenFile): Promise<void> => {
    if (opened.identity !== identity) return lockFile(opened.handle, opened.path, READING)
    const index = writable.push(await reopenWritable(opened)) - 1
    writable[index] = await lockOpened(writable[index], WRITING)
  }
  let chain: Chain | undefined
  try {
    // The opener's own locks go along with these, which are there first.
    chain = await openChain(top, { ...access, forceShare: true, formatOption: null, onOpened })
    const base = chain.images.findIndex(({ file }) => file.identity === identity)
    const [file] = writable
    if (file && base > 0) {
      const others = chain.files.filter((other) => other.identity !== identity)
      await requireApart(file, others)
      return { chain, base, file }
    }
    throw new BackupError('SOURCE_CHANGED', top, 'its backing chain changed while it was opened')
  } catch (error) {
    await closeAll([...writable, ...(chain?.files ?? [])])
    throw error
  }
}

/** Finds the base in a chain that others may still write to. */
async function identityOfBase(
  top: string,
  path: string | undefined,
  access: Access,
): Promise<string> {
  const options = { ...access, forceShare: true, formatOption: null }
  const { images, files } = await openChain(top, options)
  try {
    if (images.length === 1) throw usageError(top, 'has no backing file to commit to')
    if (path === undefined) return images[1].file.identity
    const stats = await stat(path).catch((error) => {
      throw ioError(path, error)
    })
    const identity = identityOf(stats)
    const index = images.findIndex(({ file }) => file.identity === identity)
    if (index > 0) return identity
    const why = index === 0 ? 'is the image to commit' : `is not in the backing chain of ${top}`
    throw argumentError('base', `${path} ${why}`)
  } finally {
    await closeAll(files)
  }
}
