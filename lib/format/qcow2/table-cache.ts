import { badImage } from '../../errors.ts'
import { type ImageFile, readAt } from '../read.ts'
import { l2EntrySize, sameEntries } from './entries.ts'
import type { Qcow2Header } from './header-fields.ts'
import { OVER_AND_OVER, TableReads } from './work.ts'

/** Tables are read in parts of this many bytes, and of smaller tables as many as make it up. */
export const PART = 64 * 1024
/** Bytes of parts that are kept: a table that entries share must not be read for each of them. */
const KEPT = 4 * PART

/** A part of a table. */
export interface TablePart {
  /** Where it is in the image, bytes. */
  readonly offset: number
  readonly view: DataView
  /** Whether its entries are all equal, and so map to one run. */
  readonly uniform: boolean
}

/**
 * Cache of parts of an image's L2 tables, in bounded memory. Bytes past the end
 * of the file read as zero, and take none.
 */
export class TableCache {
  /** Bytes of a part. */
  readonly partSize: number
  readonly #file: ImageFile
  readonly #entrySize: number
  readonly #reads: TableReads
  readonly #parts = new Map<number, TablePart>()
  #zeroes: DataView | undefined

  constructor(file: ImageFile, header: Pick<Qcow2Header, 'clusterSize' | 'extendedL2'>) {
    this.partSize = Math.min(header.clusterSize, PART)
    this.#file = file
    this.#entrySize = l2EntrySize(header)
    this.#reads = new TableReads(file.size, this.partSize)
  }

  /** The part at `offset` if it is in memory. */
  get(offset: number): TablePart | undefined {
    const part = this.#parts.get(offset)
    if (part === undefined) return undefined
    // The one that was used last goes last.
    this.#parts.delete(offset)
    this.#parts.set(offset, part)
    return part
  }

  /**
   * Reads parts, as far as they are not in memory; keeps them, the first one longest.
   * @param offsets of which the first is the one that is needed
   * @throws BackupError IO; BAD_IMAGE if the image asks for tables over and over
   */
  async load([first, ...others]: readonly number[]): Promise<TablePart> {
    const wanted = others.filter((offset) => offset !== first && !this.#parts.has(offset))
    const parts = await Promise.all([...new Set([...wanted, first])].map((at) => this.read(at)))
    for (const part of parts) this.keep(part)
    return parts.at(-1) as TablePart
  }

  /** Reads a part, without keeping it. */
  async read(offset: number): Promise<TablePart> {
    if (offset >= this.#file.size) return this.#beyond(offset)
    if (!this.#reads.allows()) throw badImage(this.#file.path, OVER_AND_OVER)
    const bytes = await readAt(this.#file, offset, this.partSize)
    const view = new DataView(bytes.buffer, bytes.byteOffset, this.partSize)
    return { offset, view, uniform: this.#isUniform(view) }
  }

  keep(part: TablePart): void {
    this.#parts.delete(part.offset)
    for (const oldest of this.#parts.keys()) {
      if ((this.#parts.size + 1) * this.partSize <= KEPT) break
      this.#parts.delete(oldest)
    }
    this.#parts.set(part.offset, part)
  }

  /** The reader restarts at guest offset 0, and its work is counted from 0. */
  restart(): void {
    this.#reads.restart()
  }

  #beyond(offset: number): TablePart {
    this.#zeroes ??= new DataView(new ArrayBuffer(this.partSize))
    return { offset, view: this.#zeroes, uniform: true }
  }

  /** Standard entries only: extended ones take more than one comparison. */
  #isUniform(view: DataView): boolean {
    const entries = view.byteLength / this.#entrySize
    return this.#entrySize === 8 && sameEntries(view, 0, entries - 1) === entries - 1
  }
}
