import { BackupError } from '../errors.ts'
import { bitmapRuns, dirtyBytes } from '../format/qcow2/bitmap-data.ts'
import { bitmapTableSize } from '../format/qcow2/bitmaps.ts'
import type { DirtyRun } from '../format/qcow2/bits.ts'
import { quoted } from '../format/qcow2/fields.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { BitmapWork } from '../format/qcow2/work.ts'
import { withTurns } from '../turns.ts'
import { withBitmapsOf } from './open-bitmaps.ts'

/** A bitmap of a qcow2 image. */
export interface BitmapInfo {
  name: string
  /** Bytes that one bit stands for. */
  granularity: number
  /** It records what is written. */
  recording: boolean
  /** Whoever had the image open last did not store it; only to be removed. */
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
  { signal, ...options }: { forceShare?: boolean; signal?: AbortSignal } = {},
): Promise<BitmapInfo[]> {
  return await withBitmapsOf(
    path,
    { ...options, format: 'qcow2' },
    async (file, header, bitmaps) => {
      const list: BitmapInfo[] = []
      const work = new BitmapWork(file.size)
      for (const bitmap of bitmaps) {
        list.push({
          name: bitmap.name,
          granularity: 2 ** bitmap.granularityBits,
          recording: bitmap.auto,
          inconsistent: bitmap.inUse,
          dirtyBytes: bitmap.inUse
            ? null
            : await dirtyBytes(file, header as Qcow2Header, bitmap, work, signal),
        })
      }
      return list
    },
  )
}

/**
 * What a persistent bitmap of an image says, without those of the images below.
 * @param take is given ordered, contiguous runs from 0 to the virtual size, neighbours differ, in
 * batches of bounded size
 * @throws BackupError BAD_BITMAP if there is none, or it is inconsistent; BAD_IMAGE, UNSUPPORTED,
 * IN_USE, IO, ABORTED
 */
export async function readBitmap(
  path: string,
  name: string,
  take: (runs: readonly DirtyRun[]) => void | Promise<void>,
  { signal, ...options }: { forceShare?: boolean; signal?: AbortSignal } = {},
): Promise<void> {
  await withBitmapsOf(path, { ...options, format: 'qcow2' }, async (file, header, bitmaps) => {
    const bitmap = bitmaps.find((one) => one.name === name)
    const bad = (why: string) => new BackupError('BAD_BITMAP', path, why)
    if (!bitmap) throw bad(`has no bitmap ${quoted(name)}`)
    const sound =
      !bitmap.inUse && bitmap.tableSize === bitmapTableSize(header as Qcow2Header, bitmap)
    if (!sound)
      throw bad(`bitmap ${quoted(name)} is inconsistent: what it says is not to be trusted`)
    const runs = bitmapRuns(file, header as Qcow2Header, bitmap, undefined, signal)
    for await (const batch of withTurns(runs, path, signal)) await take(batch)
  })
}
