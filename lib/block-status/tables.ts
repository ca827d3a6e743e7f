import { hostOffset } from '../format/qcow2/entries.ts'
import type { Qcow2Header } from '../format/qcow2/header.ts'
import { type ImageFile, readAt } from '../format/read.ts'
import { StatusError } from './status.ts'

/** Bytes of the L1 table that are read at a time, and of small L2 tables. */
const PART = 64 * 1024

type MappingHeader = Pick<Qcow2Header, 'clusterSize' | 'l1Size' | 'l1TableOffset'>

/**
 * The mapping tables of an image, as far as they were read last: tables are walked in order. What
 * lies past the end of the file reads as zero, as it does for QEMU.
 */
export class MappingTables {
  readonly #file: ImageFile
  readonly #header: MappingHeader
  /** A part of the L1 table, and which byte of the table it starts with. */
  #l1: { at: number; view: DataView } | undefined
  /** L2 tables by their offset. */
  #l2 = new Map<number, DataView>()

  constructor(file: ImageFile, header: MappingHeader) {
    this.#file = file
    this.#header = header
  }

  /** Where the L2 table of entry `index` of the L1 table is; 0 for none. */
  l1(index: number): number | Promise<void> {
    if (index >= this.#header.l1Size) return 0
    return this.#known(index) ?? this.#loadL1(Math.floor((index * 8) / PART) * PART)
  }

  /** The L2 table at `offset`, of L1 entry `index`. */
  l2(offset: number, index: number): DataView | Promise<void> {
    return this.#l2.get(offset) ?? this.#loadL2(offset, index)
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

  /** Reads an L2 table and, if tables are small, those of the L1 entries after `index`. */
  async #loadL2(offset: number, index: number): Promise<void> {
    const { clusterSize } = this.#header
    const offsets = new Set([offset])
    for (let next = index + 1; next < index + PART / clusterSize; next++) {
      const table = this.#known(next)
      if (table) offsets.add(table)
    }
    const read = async (at: number) => [at, await this.#read(at, clusterSize)] as const
    this.#l2 = new Map(await Promise.all([...offsets].map(read)))
  }

  async #read(offset: number, length: number): Promise<DataView> {
    const bytes = await readAt(this.#file, offset, length).catch((error) => {
      throw new StatusError(error.message, true)
    })
    return new DataView(bytes.buffer, bytes.byteOffset, length)
  }
}
