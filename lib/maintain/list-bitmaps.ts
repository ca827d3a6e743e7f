import { BackupError } from '../errors.ts'
import { bitmapRuns, dirtyBytes } from '../format/qcow2/bitmap-data.ts'
import { bitmapTableSize } from '../format/qcow2/bitmaps.ts'
import type { DirtyRun } from '../format/qcow2/bits.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { BitmapWork } from '../format/qcow2/work.ts'
import type { ControlOptions } from '../options.ts'
import { positions } from '../progress.ts'
import { quoted } from '../text.ts'
import { withTurns } from '../turns.ts'
import { withBitmapsOf } from './open-bitmaps.ts'

/** How an image's bitmaps are read. */
export interface ReadBitmapOptions extends ControlOptions {
  /** Read an image that another process may be writing to. */
  forceShare?: boolean
}

/** A bitmap of a qcow2 image. */
export interface BitmapInfo {
  name: string
  /** Bytes per bit. */
  granularity: number
  /** It records writes. */
  recording: boolean
  /** The last program that opened the image did not store it; it can only be removed. */
  inconsistent: boolean
  /** Guest bytes in the granules that it has as dirty; null if it is inconsistent. */
  dirtyBytes: number | null
}

/**
 * The persistent bitmaps of an image.
 * @throws BackupError BAD_IMAGE, UNSUPPORTED if it is not qcow2, IN_USE, IO, ABORTED
 */
export async function listBitmaps(
  path: string,
  { signal, onProgress, ...options }: ReadBitmapOptions = {},
): Promise<BitmapInfo[]> {
  return await withBitmapsOf(
    path,
    { ...options, format: 'qcow2' },
    async (file, header, bitmaps) => {
      const list: BitmapInfo[] = []
      const work = new BitmapWork(file.size)
      const size = header?.virtualSize ?? 0
      const tell = positions('bitmaps', size * bitmaps.length, onProgress)
      for (const [i, bitmap] of bitmaps.entries()) {
        list.push({
          name: bitmap.name,
          granularity: 2 ** bitmap.granularityBits,
          recording: bitmap.auto,
          inconsistent: bitmap.inUse,
          dirtyBytes: bitmap.inUse
            ? null
            : await dirtyBytes(file, header as Qcow2Header, bitmap, work, signal, (position) =>
                tell?.(i * size + position),
              ),
        })
      }
      tell?.(size * bitmaps.length, true)
      return list
    },
  )
}

/**
 * Reads a persistent bitmap of an image, without those of its backing files.
 * @param take receives ordered, contiguous runs from 0 to the virtual size, neighbours differ, in
 * batches of bounded size
 * @throws BackupError BAD_BITMAP if there is none, or it is inconsistent; BAD_IMAGE, UNSUPPORTED,
 * IN_USE, IO, ABORTED
 */
export async function readBitmap(
  path: string,
  name: string,
  take: (runs: readonly DirtyRun[]) => void | Promise<void>,
  { signal, onProgress, ...options }: ReadBitmapOptions = {},
): Promise<void> {
  await withBitmapsOf(path, { ...options, format: 'qcow2' }, async (file, header, bitmaps) => {
    const bitmap = bitmaps.find((one) => one.name === name)
    const bad = (why: string) => new BackupError('BAD_BITMAP', path, why)
    if (!bitmap) throw bad(`has no bitmap ${quoted(name)}`)
    const sound =
      !bitmap.inUse && bitmap.tableSize === bitmapTableSize(header as Qcow2Header, bitmap)
    if (!sound) throw bad(`bitmap ${quoted(name)} is inconsistent and cannot be used`)
    const runs = bitmapRuns(file, header as Qcow2Header, bitmap, undefined, signal)
    const size = header?.virtualSize ?? 0
    const tell = positions('bitmaps', size, onProgress)
    for await (const batch of withTurns(runs, path, signal)) {
      const last = batch.at(-1)
      if (last) tell?.(last.start + last.length)
      await take(batch)
    }
    tell?.(size, true)
  })
}
