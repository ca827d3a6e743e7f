import { hostOffset } from '../format/qcow2/entries.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { PART, TableCache, type TablePart } from '../format/qcow2/table-cache.ts'
import { type ImageFile, readAt } from '../format/read.ts'
import { StatusError } from './status.ts'

type MappingHeader = Pick<Qcow2Header, 'clusterSize' | 'extendedL2' | 'l1Size' | 'l1TableOffset'>

/**
 * The mapping tables of an image, as far as they were read last: tables are walked in order. What
 * lies past the end of the file reads as zero, as it does for QEMU.
 */
export class MappingTables {
  readonly #file: ImageFile
  readonly #header: MappingHeader
  /** A part of the L1 table, and which byte of the table it starts with. */
  #l1: { at: number; view: DataView } | undefined
  readonly #tables: TableCache

  constructor(file: ImageFile, header: MappingHeader) {
    this.#file = file
    this.#header = header
    this.#tables = new TableCache(file, header)
  }

  /** Bytes of a part of an L2 table: of a slice, as QEMU calls it. */
  get partSize(): number {
    return this.#tables.partSize
  }

  /** Where the L2 table of entry `index` of the L1 table is; 0 for none. */
  l1(index: number): number | Promise<void> {
    if (index >= this.#header.l1Size) return 0
    return this.#known(index) ?? this.#loadL1(Math.floor((index * 8) / PART) * PART)
  }

  /**
   * How many entries of the L1 table from `index` on, where none is, are seen to be without a table.
   * REQUIRES: `l1(index)` gave 0.
   */
  emptyFrom(index: number): number {
    const { l1Size, l1TableOffset } = this.#header
    let next = index + 1
    while (next < l1Size && this.#known(next) === 0) next++
    // Bytes of the table past the end of the file are zero.
    const past = l1TableOffset + next * 8 >= this.#file.size
    return (next >= l1Size || past ? Number.POSITIVE_INFINITY : next) - index
  }

  /** The part at `offset` of the L2 table of L1 entry `index`. */
  l2(offset: number, index: number): TablePart | Promise<void> {
    return this.#tables.get(offset) ?? this.#loadL2(offset, index)
  }

  /** A walk through the guest starts again. */
  restart(): void {
    this.#tables.restart()
  }

  /** Entry `index` of the L1 table if it is in memory. */
  #known(index: number): number | undefined {
    if (!this.#l1) return undefined
    const { at, view } = this.#l1
    const byte = index * 8 - at
    return byte >= 0 && byte < view.byteLength ? hostOffset(view, byte) : undefined
  }

  async #loadL1(at: number): Promise<void> {
    const { l1Size, l1TableOffset } = this.#header
    this.#l1 = { at, view: await this.#read(l1TableOffset + at, Math.min(PART, l1Size * 8 - at)) }
  }

  /** Reads a part of an L2 table and, if tables are small, those of the L1 entries after `index`. */
  async #loadL2(offset: number, index: number): Promise<void> {
    const { clusterSize } = this.#header
    const offsets = [offset]
    for (let next = index + 1; next < index + PART / clusterSize; next++) {
      const table = this.#known(next)
      if (table) offsets.push(table)
    }
    await this.#tables.load(offsets).catch((error) => {
      throw new StatusError(
        error.code === 'BAD_IMAGE' ? error.why : error.message,
        error.code !== 'BAD_IMAGE',
      )
    })
  }

  async #read(offset: number, length: number): Promise<DataView> {
    const bytes = await readAt(this.#file, offset, length).catch((error) => {
      throw new StatusError(error.message, true)
    })
    return new DataView(bytes.buffer, bytes.byteOffset, length)
  }
}
