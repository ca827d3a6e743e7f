import type { BackupError } from '../errors.ts'
import { badImage } from '../errors.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { type TableEntry, tableEntry, unaligned } from '../format/qcow2/refcount-table.ts'
import { decodeRefcount, encodeRefcount, type Refcount } from '../format/qcow2/refcounts.ts'
import { END_OF_FILES } from '../format/qcow2/validate.ts'
import { readAt } from '../format/read.ts'
import type { OpenFile } from '../image/file.ts'
import { roundUp } from '../units.ts'
import { IO_ERROR } from './report.ts'

/** Bytes of refcount blocks that are kept. */
const CACHE = 64 * 2 ** 20

/** A block of refcounts in memory. */
export interface Block {
  offset: number
  bytes: Buffer
}

/** Why a refcount cannot be read. */
export class Unreadable {
  readonly error: BackupError

  constructor(error: BackupError) {
    this.error = error
  }
}

/** The refcounts stored in an image. */
export class StoredRefcounts {
  /** Clusters whose refcounts are in one block. */
  readonly perBlock: number
  readonly #file: OpenFile
  readonly #clusterSize: number
  /** Of one refcount. */
  readonly bits: number
  readonly #onCorrupt: (text: string) => void
  readonly #table: Buffer
  readonly #blocks = new Map<number, Block | Unreadable>()
  /** The block that was asked last: neighbours mostly lie in one. */
  #lastIndex = -1
  #last: Buffer = Buffer.alloc(0)
  /** Entries of the table, and those of them that are within the file: the others are 0. */
  readonly entries: number
  readonly stored: number
  #told = false
  /** Runs of table entries without a block. */
  #gapStart = 0
  #gapEnd = -1

  private constructor(
    file: OpenFile,
    header: Qcow2Header,
    table: Buffer,
    onCorrupt: (text: string) => void,
  ) {
    this.#file = file
    this.#clusterSize = header.clusterSize
    this.bits = 2 ** header.refcountOrder
    this.#table = table
    this.#onCorrupt = onCorrupt
    this.stored = table.length / 8
    this.entries = (header.refcountTableClusters * header.clusterSize) / 8
    this.perBlock = (header.clusterSize * 8) / this.bits
  }

  /** @param onCorrupt receives damage that does not prevent reading the rest */
  static async open(
    file: OpenFile,
    header: Qcow2Header,
    onCorrupt: (text: string) => void,
  ): Promise<StoredRefcounts> {
    const { refcountTableOffset: offset, refcountTableClusters, clusterSize } = header
    // Bytes past the end of the file read as zero: no blocks. An entry may be cut there, too.
    const inFile = roundUp(Math.max(0, file.size - offset), 8)
    const bytes = Math.min(refcountTableClusters * clusterSize, inFile)
    return new StoredRefcounts(file, header, await readAt(file, offset, bytes), onCorrupt)
  }

  entry(index: number): TableEntry {
    if (index >= this.stored) return { offset: 0, aligned: true, reserved: false }
    return tableEntry(this.#table, index, this.#clusterSize)
  }

  /** Whether the table names a block, be it readable or not. */
  hasBlock(index: number): boolean {
    return this.entry(index).offset !== 0
  }

  /** The first block from `index` on; the end of the table if there is none. */
  nextBlock(index: number): number {
    // Asked for each entry of a long gap: the gap is searched once.
    if (index < this.#gapStart || index > this.#gapEnd) {
      let next = index
      while (next < this.stored && !this.hasBlock(next)) next++
      this.#gapStart = index
      this.#gapEnd = next < this.stored ? next : Number.POSITIVE_INFINITY
    }
    return this.#gapEnd
  }

  /** The refcount of a cluster; undefined if its block has to be loaded first. */
  get(cluster: number): Refcount | Unreadable | undefined {
    const index = Math.floor(cluster / this.perBlock)
    if (index !== this.#lastIndex) {
      if (index >= this.entries || this.entry(index).offset === 0) return 0
      const block = this.#blocks.get(index)
      if (block === undefined || block instanceof Unreadable) return block
      this.#lastIndex = index
      this.#last = block.bytes
    }
    return decodeRefcount(this.#last, cluster - index * this.perBlock, this.bits)
  }

  /**
   * How many clusters from `cluster` on are seen to have the refcounts `wanted`. May stop early, at
   * the end of a block.
   */
  alike(cluster: number, wanted: ArrayLike<number>): number {
    if (this.get(cluster) !== wanted[0]) return 0
    const index = Math.floor(cluster / this.perBlock)
    const from = cluster - index * this.perBlock
    const end = Math.min(wanted.length, this.perBlock - from)
    let n = 1
    if (index !== this.#lastIndex) {
      // The refcount was 0 because there was no block.
      while (n < end && wanted[n] === 0) n++
      return n
    }
    const block = this.#last
    const bits = this.bits
    while (n < end && decodeRefcount(block, from + n, bits) === wanted[n]) n++
    return n
  }

  /** Changes a refcount in its block, which is in memory; the block is to be written. */
  set(cluster: number, refcount: Refcount): Block {
    const block = this.#blocks.get(Math.floor(cluster / this.perBlock)) as Block
    encodeRefcount(block.bytes, cluster % this.perBlock, this.bits, refcount)
    return block
  }

  /** Reads the block of the refcount of a cluster. */
  async load(cluster: number): Promise<void> {
    const index = Math.floor(cluster / this.perBlock)
    for (const kept of this.#blocks.keys()) {
      if (this.#blocks.size * this.#clusterSize < CACHE) break
      this.#blocks.delete(kept)
    }
    this.#blocks.set(index, await this.#read(index))
    this.#lastIndex = -1
  }

  async #read(index: number): Promise<Block | Unreadable> {
    const { offset, aligned } = this.entry(index)
    if (!aligned) {
      if (!this.#told) this.#onCorrupt(unaligned(this.#table, index))
      this.#told = true
      return this.#unreadable('is not aligned')
    }
    if (offset >= END_OF_FILES) return this.#unreadable('is past the end of the file')
    try {
      return { offset, bytes: await readAt(this.#file, offset, this.#clusterSize) }
    } catch {
      return this.#unreadable('cannot be read')
    }
  }

  #unreadable(why: string): Unreadable {
    return new Unreadable(badImage(this.#file.path, `its refcount block ${why}`, IO_ERROR))
  }
}
