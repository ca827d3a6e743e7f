import { bitmapRuns } from '../../format/qcow2/bitmap-data.ts'
import {
  type Bitmap,
  bitmapsAreCurrent,
  bitmapTableSize,
  readBitmaps,
} from '../../format/qcow2/bitmaps.ts'
import type { Qcow2Header } from '../../format/qcow2/header-fields.ts'
import { BitmapWork } from '../../format/qcow2/work.ts'
import type { ChainImage } from '../../image/image-chain.ts'
import { Pieces } from './pieces.ts'
import type { ReportedBitmap } from './types.ts'

/** Bitmaps whose bits are read: an image may have tens of thousands. */
const MAX_READ = 64

/** The bitmaps of the images of a chain, and which parts of the disk they have as dirty. */
export class ChainBitmaps {
  readonly found: ReportedBitmap[] = []
  readonly #size: number
  readonly #signal: AbortSignal | undefined
  #read = 0

  /** @param size of the disk, bytes */
  constructor(size: number, signal?: AbortSignal) {
    this.#size = size
    this.#signal = signal
  }

  /**
   * Adds those of an image.
   * @param live another process has it open for writing, and its bitmaps in memory
   * @throws BackupError BAD_IMAGE, UNSUPPORTED, IO, ABORTED
   */
  async add({ path, file, header }: ChainImage, live: boolean): Promise<void> {
    if (!header || header.version < 3 || !bitmapsAreCurrent(header)) return
    const bitmaps = await readBitmaps(file, header)
    const work = new BitmapWork(file.size)
    for (const bitmap of bitmaps) {
      const { name, granularityBits, auto, inUse } = bitmap
      const known: ReportedBitmap = {
        image: path,
        name,
        granularity: 2 ** granularityBits,
        recording: auto,
        inconsistent: !isSound(bitmap, header) && !(inUse && live),
      }
      this.found.push(known)
      if (!isSound(bitmap, header) || this.#read >= MAX_READ) continue
      this.#read++
      const pieces = new Pieces(this.#size)
      for await (const batch of bitmapRuns(file, header, bitmap, work, this.#signal)) {
        for (const { start, length, dirty } of batch) if (dirty) pieces.add(start, length)
      }
      Object.assign(known, { dirtyBytes: pieces.sum, map: pieces.bytes })
    }
  }
}

function isSound(bitmap: Bitmap, header: Qcow2Header): boolean {
  return !bitmap.inUse && bitmap.tableSize === bitmapTableSize(header, bitmap)
}
