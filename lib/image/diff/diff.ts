import { usageError } from '../../errors.ts'
import { unsupported } from '../../format/qcow2/fields.ts'
import { isNbdUri } from '../../source/nbd-uri.ts'
import { type AddedBitmap, addBitmap } from '../bitmaps.ts'
import { addDifferences, type UnreadableArea } from './differences.ts'
import { openSide } from './sides.ts'

export interface DiffOptions {
  /** Bytes that one bit stands for. Default: the cluster size, from 4 to 64 KiB. */
  granularity?: number
  /** Let it record what is written from now on. Default: no. */
  enable?: boolean
  /** The formats. Default: recognised by their magic; the image is qcow2. */
  baselineFormat?: 'raw' | 'qcow2'
  /** Directories below which files named inside images may be opened, besides their own. */
  allowPaths?: readonly string[]
  /** The format of backing files whose images do not record it. */
  backingFormat?: 'raw' | 'qcow2'
  signal?: AbortSignal
  /** Called now and then with guest bytes compared so far, and all. */
  onProgress?: (position: number, size: number) => void
}

/** What a comparison made. */
export interface DiffResult {
  image: string
  bitmap: string
  /** Bytes. */
  granularity: number
  /** Guest bytes in the granules that differ. */
  dirtyBytes: number
  unreadable: UnreadableArea[]
}

/**
 * Adds a bitmap to an image that has exactly those granules dirty in which the guest sees something
 * else than in a known state of the disk, such as the last backup: for a bitmap that was lost or
 * never made. Bytes that one of the two lacks, being smaller, are zero. What both have as zero, and
 * what is the same place of the same file, is not read. Nobody else may write to the image meanwhile.
 * @param image path of a qcow2 image of version 3
 * @param baseline path of a raw or qcow2 image
 * @throws BackupError BAD_BITMAP if the bitmap is there already or cannot be; BAD_IMAGE, UNSUPPORTED,
 * NOT_ALLOWED, IN_USE, IO, USAGE, ABORTED: the image is as it was then
 */
export async function diffToBitmap(
  image: string,
  baseline: string,
  bitmap: string,
  options: DiffOptions = {},
): Promise<DiffResult> {
  for (const name of [image, baseline]) {
    if (isNbdUri(name)) throw unsupported(name, 'NBD exports cannot be compared by this version')
  }
  if (bitmap === '') throw usageError('--bitmap', 'missing; it names the bitmap to add')
  const { granularity, enable = false } = options
  let unreadable: UnreadableArea[] = []
  const added: AddedBitmap = { name: bitmap, granularity, recording: enable }
  const made = await addBitmap(image, added, async (bits) => {
    const { allowPaths, backingFormat, baselineFormat } = options
    const access = { allowPaths, backingFormat }
    // It is ours alone already, by a lock that this one must not mind.
    const changed = await openSide(image, { ...access, format: 'qcow2', forceShare: true })
    try {
      const known = await openSide(baseline, { ...access, format: baselineFormat })
      try {
        unreadable = await addDifferences(bits, [changed, known], options)
      } finally {
        await known.close()
      }
    } finally {
      await changed.close()
    }
  })
  return { image, bitmap, ...made, unreadable }
}
