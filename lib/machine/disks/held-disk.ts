import { BackupError, unsupported } from '../../errors.ts'
import { defaultGranularity, readBitmaps } from '../../format/qcow2/bitmaps.ts'
import { readHeader } from '../../format/qcow2/qcow2-image.ts'
import { type OpenFile, openWritable, toOpenFile } from '../../image/file.ts'
import { lockOpened, WRITING } from '../../image/locks.ts'
import { editBitmaps, type NamedOperation } from '../../maintain/edit-bitmap.ts'
import { isNbdUri } from '../../nbd/uri.ts'
import { openSource } from '../../source/open-source.ts'
import { type Chain, closeAll, openChain } from '../../source/source-chain.ts'
import type { FrozenDisk, MachineOptions } from '../machine.ts'
import type { NamedDisk } from './parse-disks.ts'
import { begin, end, marksOf } from './run-marks.ts'

type Access = Pick<MachineOptions, 'format' | 'allowPaths' | 'backingFormat'>

/**
 * A disk whose files are locked as QEMU locks them: nobody else writes to them meanwhile. Where
 * its bitmaps are to be edited, nobody else has the topmost file open at all.
 */
export class HeldDisk {
  readonly #disk: NamedDisk
  readonly #access: Access
  readonly #chain: Chain
  /** The topmost image, where its bitmaps may be edited. */
  readonly #top: OpenFile | undefined
  /** In which the last edit left that image, sound. */
  #sound: string | undefined

  /**
   * Locks the files of a disk.
   * @param editing its bitmaps are to be edited
   * @throws BackupError IN_USE, BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED, IO, ABORTED
   */
  static async hold(
    disk: NamedDisk,
    access: Access,
    { editing, signal }: { editing: boolean; signal?: AbortSignal },
  ): Promise<HeldDisk> {
    const { source, format = access.format } = disk
    const top = editing ? await lockForEditing(source) : undefined
    try {
      // Our own lock of the topmost image would refuse this one's.
      const shared = top && ((depth: number, isDataFile: boolean) => depth === 0 && !isDataFile)
      const chain = await openChain(source, { ...access, format, shared, signal })
      if (top && chain.files[0].identity !== top.identity) {
        await closeAll(chain.files)
        throw new BackupError('SOURCE_CHANGED', source, 'was replaced while it was opened')
      }
      return new HeldDisk(disk, access, chain, top)
    } catch (error) {
      await top?.handle.close()
      throw error
    }
  }

  private constructor(disk: NamedDisk, access: Access, chain: Chain, top: OpenFile | undefined) {
    this.#disk = disk
    this.#access = access
    this.#chain = chain
    this.#top = top
  }

  /**
   * Adds a bitmap that records from now on, marked as of a run that has not ended.
   * @returns its granularity, bytes
   * @throws BackupError BAD_BITMAP, BAD_IMAGE, UNSUPPORTED, IO, ABORTED
   */
  async begin(run: string, checkpoint: string, signal?: AbortSignal): Promise<number> {
    const top = this.#writable()
    const [{ header }] = this.#chain.images
    if (!header) throw unsupported(top.path, 'is not a qcow2 image')
    const granularity = defaultGranularity(header.clusterSize)
    this.#sound = await editBitmaps(top, begin(run, checkpoint, granularity), { signal })
    return granularity
  }

  /**
   * Ends runs that are marked, and removes other bitmaps, all in one step.
   * @param isEnded of which runs the marks go
   * @param remove names; those that there are not are ignored
   * @returns what was removed
   * @throws BackupError BAD_IMAGE, UNSUPPORTED, IO
   */
  async end(
    isEnded: (run: string) => boolean,
    isStored: (run: string) => boolean,
    remove: readonly string[] = [],
  ): Promise<string[]> {
    const bitmaps = await this.#bitmaps()
    const marks = marksOf(bitmaps).filter(({ run }) => isEnded(run))
    const operations = end(bitmaps, marks, isStored)
    const gone = new Set(operations.map(({ name }) => name))
    const more = bitmaps.filter(({ name }) => remove.includes(name) && !gone.has(name))
    const all: NamedOperation[] = [
      ...operations,
      ...more.map(({ name }) => ({ name, operation: { kind: 'remove' } }) as const),
    ]
    this.#sound = await editBitmaps(this.#writable(), all, { sound: this.#sound })
    return all.map(({ name }) => name)
  }

  /** As the disk is read while it is held. */
  frozen(since: string | undefined, checkpoint: FrozenDisk['checkpoint']): FrozenDisk {
    const { name, source } = this.#disk
    // The locks held here keep writers away, and would refuse the reader's own.
    const open = { ...this.#access, format: this.#chain.format, bitmap: since, forceShare: true }
    return { name, virtualSize: this.#chain.layers[0].size, source, open, checkpoint }
  }

  /** Unlocks the files. Never fails. */
  async release(): Promise<void> {
    await closeAll(this.#top ? [...this.#chain.files, this.#top] : this.#chain.files)
  }

  async #bitmaps() {
    const top = this.#writable()
    const file = await toOpenFile(top.path, top.handle)
    return await readBitmaps(file, await readHeader(file))
  }

  #writable(): OpenFile {
    if (!this.#top) throw new Error('its bitmaps are not to be edited')
    return this.#top
  }
}

/** An NBD export, which the user says does not change. */
export async function frozenExport(
  { name, source }: NamedDisk,
  { format }: Access,
  signal?: AbortSignal,
): Promise<FrozenDisk> {
  const opened = await openSource(source, { format, signal })
  const { size } = opened
  await opened.close()
  return { name, virtualSize: size, source, open: { format } }
}

export function isExport({ source }: NamedDisk): boolean {
  return isNbdUri(source)
}

async function lockForEditing(path: string): Promise<OpenFile> {
  const file = await openWritable(path)
  try {
    return await lockOpened(file, WRITING)
  } catch (error) {
    await file.handle.close()
    throw error
  }
}
