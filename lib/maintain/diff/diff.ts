import { Bits } from '../../edit/bits.ts'
import { argumentError, usageError } from '../../errors.ts'
import type { DirtyRun } from '../../format/qcow2/bits.ts'
import { requireApart } from '../../image/storage.ts'
import { isImageUrl, shownLocation } from '../../imageio/client/address.ts'
import { isNbdUri } from '../../nbd/uri.ts'
import type { OpenOptions } from '../../source/open-source.ts'
import { Turns } from '../../turns.ts'
import { type AddedBitmap, addBitmap, mergeIntoBitmap, requireMergeable } from '../edit-bitmap.ts'
import { addDifferences, type UnreadableRange } from './differences.ts'
import { openList } from './list-file.ts'
import { type SideOptions, withSides } from './sides.ts'

/** How two disks are compared. */
export interface CompareOptions extends Pick<OpenOptions, 'connections' | 'timeoutMs'> {
  /** Bytes per bit. Default of a bitmap: the cluster size, from 4 to 64 KiB; else 64 KiB. */
  granularity?: number
  /** The format of the disk. Default: recognised by its magic. */
  format?: 'raw' | 'qcow2'
  /** The format of the baseline. Default: recognised by its magic. */
  baselineFormat?: 'raw' | 'qcow2'
  /** Directories below which files named inside images may be opened, besides their own. */
  allowPaths?: readonly string[]
  /** The format of backing files whose images do not record it. */
  backingFormat?: 'raw' | 'qcow2'
  signal?: AbortSignal
  /** Called now and then with guest bytes compared so far, and all. */
  onProgress?: (position: number, size: number) => void
}

export interface DiffOptions extends CompareOptions {
  /** Let it record writes from now on. Default: no. */
  enable?: boolean
}

export interface DiffDisksOptions extends CompareOptions {
  /** An image of a disk of the same size, not in use, whose `bitmap` gets the differences, too. */
  mergeInto?: string
  /** The name of that bitmap. One that does not exist is added, disabled. */
  bitmap?: string
  /**
   * Path of a new file that gets the differences as a JSON array of {start, length, dirty}, mode 0600; it
   * appears there only when complete and synced.
   */
  output?: string
  /** Replace an output file that exists. */
  force?: boolean
  /**
   * Receives the differences after the comparison: ordered, contiguous runs from 0 to the size of the disk,
   * neighbours differ, in batches of bounded size; the next comes when its promise has resolved.
   */
  take?: (runs: readonly DirtyRun[]) => void | Promise<void>
}

/** Result of `diffToBitmap`; sizes in bytes. */
export interface DiffResult {
  image: string
  bitmap: string
  /** Bytes. */
  granularity: number
  /** Guest bytes in the granules that differ. */
  dirtyBytes: number
  unreadable: UnreadableRange[]
}

/** Result of comparing two disks; sizes in bytes. */
export interface Differences {
  /** Of the first disk, bytes. */
  virtualSize: number
  /** Bytes. */
  granularity: number
  /** Guest bytes in the granules that differ. */
  dirtyBytes: number
  unreadable: UnreadableRange[]
  /** Caveats about the output file. */
  notes?: readonly string[]
}

const DEFAULT_GRANULARITY = 65536

/**
 * Adds a bitmap to an image that has exactly those granules dirty in which the guest sees something
 * else than in a known state of the disk, such as the last backup: for a bitmap that was lost or
 * never made. Bytes past the end of the smaller one are zero. Ranges that are zero in both, and
 * the same place of the same file, are not read. Nobody else may write to the image meanwhile.
 * @param image path of a qcow2 image of version 3
 * @param baseline path of a raw or qcow2 image, or the URI of an NBD export
 * @throws BackupError BAD_BITMAP if the bitmap is there already or cannot be; BAD_IMAGE, UNSUPPORTED,
 * NOT_ALLOWED, IN_USE, IO, USAGE, ABORTED: the image is as it was then
 */
export async function diffToBitmap(
  image: string,
  baseline: string,
  bitmap: string,
  options: DiffOptions = {},
): Promise<DiffResult> {
  if (bitmap === '') throw argumentError('bitmap', 'missing; it names the bitmap to add')
  if (isNbdUri(image)) {
    throw usageError(image, 'an NBD export cannot store a bitmap')
  }
  if (isImageUrl(image)) {
    throw usageError(shownLocation(image), 'a disk of an imageio server cannot store a bitmap')
  }
  if (options.format === 'raw') throw argumentError('format', 'a raw image cannot store a bitmap')
  const { granularity, enable = false, allowPaths, backingFormat } = options
  let unreadable: UnreadableRange[] = []
  const added: AddedBitmap = { name: bitmap, granularity, recording: enable }
  // It is ours alone already, by a lock that this one must ignore; its backing files are not, nor is
  // the file that its data is in.
  const locked = (depth: number, isDataFile: boolean) => depth === 0 && !isDataFile
  const own = { allowPaths, backingFormat, format: 'qcow2' as const, locked }
  const made = await addBitmap(
    image,
    added,
    async (bits, file) => {
      unreadable = await withSides(
        [image, own],
        [baseline, baselineOptions(options)],
        async (sides) => {
          await requireApart(file, sides[1].stores)
          return await addDifferences(bits, sides, options)
        },
      )
    },
    options.signal,
  )
  return { image, bitmap, ...made, unreadable }
}

/**
 * Finds the granules in which the guest sees something else in one disk than in another: such as a
 * point in time of a running machine, that QEMU exports, and its last backup. As diffToBitmap.
 * @param disk path of a raw or qcow2 image, or the URI of an NBD export
 * @param baseline the same
 * @throws BackupError as diffToBitmap
 */
export async function diffDisks(
  disk: string,
  baseline: string,
  options: DiffDisksOptions = {},
): Promise<Differences> {
  const { allowPaths, backingFormat, connections, timeoutMs, format } = options
  const { output, force, granularity = DEFAULT_GRANULARITY, take } = options
  const into = mergeTarget(options, granularity)
  if (output === undefined && force) throw argumentError('force', 'there is no output file')
  const own = { allowPaths, backingFormat, connections, timeoutMs, signal: options.signal, format }
  return await withSides([disk, own], [baseline, baselineOptions(options)], async (sides) => {
    const { size } = sides[0].node
    const read = sides.flatMap(({ stores }) => stores)
    const list = output === undefined ? undefined : await openList(output, { force, sources: read })
    try {
      if (into) await requireMergeable(into.image, into, size, read, options.signal)
      const bits = new Bits(size, granularity, DEFAULT_GRANULARITY)
      const unreadable = await addDifferences(bits, sides, options)
      if (into) await mergeIntoBitmap(into.image, into, bits, options.signal)
      // There may be as many runs as the disk has granules, and all of them in memory.
      const turns = new Turns(disk, options.signal)
      for (const runs of bits.runs()) {
        await turns.step()
        await list?.add(runs)
        await take?.(runs)
      }
      const notes = (await list?.publish()) ?? []
      const dirtyBytes = await bits.dirtyBytes(turns)
      const found = { virtualSize: size, granularity, dirtyBytes, unreadable }
      return notes.length > 0 ? { ...found, notes } : found
    } finally {
      await list?.discard()
    }
  })
}

/** Where the differences are merged into, if anywhere. */
function mergeTarget(
  options: DiffDisksOptions,
  granularity: number,
): (AddedBitmap & { image: string }) | undefined {
  const { mergeInto: image, bitmap: name } = options
  if (image !== undefined && !name) {
    throw argumentError('bitmap', 'missing; it names the bitmap to merge into')
  }
  if (image === undefined && name !== undefined) {
    throw argumentError('bitmap', 'there is no image to merge into')
  }
  if (image === undefined || name === undefined) return undefined
  return { image, name, granularity, recording: false }
}

/** How the baseline is opened. */
function baselineOptions(options: CompareOptions): SideOptions {
  const { allowPaths, backingFormat, baselineFormat: format, connections, timeoutMs } = options
  const { signal } = options
  const formatOption = 'baselineFormat' as const
  return { allowPaths, backingFormat, format, formatOption, connections, timeoutMs, signal }
}
