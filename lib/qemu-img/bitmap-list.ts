import { badImage } from '../errors.ts'
import { isSoundEntry } from '../format/qcow2/bitmap-data.ts'
import { type Bitmap, bitmapTableSize } from '../format/qcow2/bitmaps.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { type ImageFile, readAt } from '../format/read.ts'
import { quoted } from '../text.ts'
import { Turns } from '../turns.ts'

/**
 * Checks bitmaps as QEMU does when it opens an image. Those in use it does
 * not load.
 * @throws BackupError BAD_IMAGE, IO, ABORTED
 */
export async function requireLoadable(
  file: ImageFile,
  header: Qcow2Header,
  bitmaps: readonly Bitmap[],
  signal?: AbortSignal,
): Promise<void> {
  const tables = new Tables(file, header.clusterSize, signal)
  for (const bitmap of bitmaps) {
    if (bitmap.inUse) continue
    const { name } = bitmap
    if (!(await tables.isSound(bitmap))) {
      throw badImage(
        file.path,
        `bitmap ${quoted(name)}: its table has an invalid entry`,
        `Could not read bitmap_table table from image for bitmap '${name}': Invalid argument`,
      )
    }
    if (bitmap.tableSize !== bitmapTableSize(header, bitmap)) {
      throw badImage(
        file.path,
        `bitmap ${quoted(name)}: its table has the wrong size for the disk`,
        `Could not read bitmap '${name}' from image: Invalid argument`,
      )
    }
  }
}

/** Looks at each cluster of tables once, however many bitmaps claim it to be theirs. */
class Tables {
  readonly #file: ImageFile
  readonly #clusterSize: number
  readonly #turns: Turns
  readonly #seen = new Set<string>()
  /** Offsets of clusters all of whose entries are sound. */
  readonly #sound = new Set<number>()

  constructor(file: ImageFile, clusterSize: number, signal?: AbortSignal) {
    this.#turns = new Turns(file.path, signal)
    this.#file = file
    this.#clusterSize = clusterSize
  }

  async isSound({ tableOffset, tableSize }: Bitmap): Promise<boolean> {
    const table = `${tableOffset} ${tableSize}`
    if (this.#seen.has(table)) return true
    // Bytes past the end of the file read as zero, which is sound.
    const end = Math.min(tableOffset + tableSize * 8, this.#file.size)
    for (let at = tableOffset; at < end; at += this.#clusterSize) {
      await this.#turns.step()
      if (this.#sound.has(at)) continue
      const length = Math.min(this.#clusterSize, tableOffset + tableSize * 8 - at)
      if (!this.#hasSoundEntries(await readAt(this.#file, at, length))) return false
      if (length === this.#clusterSize) this.#sound.add(at)
    }
    this.#seen.add(table)
    return true
  }

  #hasSoundEntries(entries: Buffer): boolean {
    for (let at = 0; at < entries.length; at += 8) {
      if (!isSoundEntry(entries, at, this.#clusterSize)) return false
    }
    return true
  }
}
