import { l2EntrySize } from '../format/qcow2/entries.ts'
import { readAt } from '../format/read.ts'
import type { Write } from '../image/steps.ts'
import type { Allocator } from './allocator.ts'
import { type Entry, readEntry, writeZero } from './edited-entries.ts'
import type { EditedImage } from './edited-image.ts'
import type { L1Table } from './l1.ts'
import { type Lost, lose } from './release.ts'

/** An L2 table that is being changed. */
export interface L2Table {
  offset: number
  view: DataView
  bytes: Buffer
  /** Nothing refers to it yet. */
  fresh: boolean
}

/**
 * The L2 tables that a batch of changes touches. One that others may use too is not changed: the L1
 * entry gets a copy. Nothing is written; the writes are gathered.
 */
export class L2Tables {
  readonly #image: EditedImage
  readonly #l1: L1Table
  readonly #allocator: Allocator
  /** Clusters that are no longer referred to. */
  readonly #lost: Lost
  readonly #tables = new Map<number, L2Table>()
  readonly #entrySize: number
  /** A table that is known to have nothing but zeroes. */
  #knownZero = 0
  /** The entry that fills a table of zeroes. */
  #zeroes: Buffer | undefined

  constructor(image: EditedImage, l1: L1Table, allocator: Allocator, lost: Lost) {
    this.#image = image
    this.#l1 = l1
    this.#allocator = allocator
    this.#lost = lost
    this.#entrySize = l2EntrySize(image.header)
  }

  /** Of those that are in memory. */
  get bytes(): number {
    return this.#tables.size * this.#image.header.clusterSize
  }

  /** Whether an L1 entry names a table, or will. */
  has(index: number): boolean {
    return this.#l1.offset(index) !== 0
  }

  /** The table of an L1 entry, to be changed; a new one if there is none. */
  async get(index: number): Promise<L2Table> {
    const known = this.#tables.get(index)
    if (known) return known
    const { clusterSize } = this.#image.header
    const offset = this.#l1.offset(index)
    const bytes = offset === 0 ? Buffer.alloc(clusterSize) : await this.#read(offset)
    if (offset !== 0 && this.#l1.copied(index)) {
      return this.#add(index, { offset, bytes, view: viewOf(bytes), fresh: false })
    }
    const own = await this.#allocator.allocate(1)
    const table = this.#add(index, { offset: own, bytes, view: viewOf(bytes), fresh: true })
    if (offset !== 0) await this.#leave(index)
    this.#l1.set(index, own, true)
    return table
  }

  /** An L1 entry names no table any more. REQUIRES: it names one */
  async remove(index: number): Promise<void> {
    await this.#drop(index)
    this.#l1.set(index, 0, false)
  }

  /**
   * Makes the range of an L1 entry read as zero, also over a backing file. Its table is its own:
   * QEMU does not keep an image valid in which entries of the active L1 table share one.
   */
  async zero(index: number): Promise<void> {
    if (this.has(index) && (await this.isZero(index))) return
    if (this.has(index)) await this.#drop(index)
    this.#zeroes ??= this.#tableOfZeroes()
    const bytes = Buffer.from(this.#zeroes)
    const offset = await this.#allocator.allocate(1)
    this.#add(index, { offset, bytes, view: viewOf(bytes), fresh: true })
    this.#l1.set(index, offset, true)
  }

  /** Whether the table that an L1 entry names has zeroes without host clusters alone. */
  async isZero(index: number): Promise<boolean> {
    const known = this.#tables.get(index)
    const offset = this.#l1.offset(index)
    // Many may name one table.
    if (!known && offset === this.#knownZero) return true
    const view = known?.view ?? viewOf(await this.#read(offset))
    for (const { kind, size } of this.#entries(view)) {
      if (kind !== 'zero' || size > 0) return false
    }
    if (!known) this.#knownZero = offset
    return true
  }

  /** Tables to be written: new ones, to which nothing refers yet, and changed ones. */
  finish(): { fresh: Write[]; changed: Write[] } {
    const tables = [...this.#tables.values()]
    const writes = (fresh: boolean) =>
      tables.filter((one) => one.fresh === fresh).map(({ offset, bytes }) => ({ offset, bytes }))
    return { fresh: writes(true), changed: writes(false) }
  }

  #add(index: number, table: L2Table): L2Table {
    this.#tables.set(index, table)
    return table
  }

  #tableOfZeroes(): Buffer {
    const { clusterSize, extendedL2 } = this.#image.header
    const bytes = Buffer.alloc(clusterSize)
    const view = viewOf(bytes)
    for (let at = 0; at < clusterSize; at += this.#entrySize) writeZero(view, at, extendedL2)
    return bytes
  }

  async #read(offset: number): Promise<Buffer> {
    return await readAt(this.#image.file, offset, this.#image.header.clusterSize)
  }

  *#entries(view: DataView): Generator<Entry> {
    const { header } = this.#image
    for (let at = 0; at < header.clusterSize; at += this.#entrySize) {
      yield readEntry(view, at, header)
    }
  }

  /** Releases the table of an L1 entry, and the clusters that it names. */
  async #drop(index: number): Promise<void> {
    const { clusterSize } = this.#image.header
    const known = this.#tables.get(index)
    // Of a table of zeroes, which all of a disk may share, no entry names a cluster.
    if (!known && this.#l1.offset(index) === this.#knownZero) return await this.#leave(index)
    const view = known?.view ?? viewOf(await this.#read(this.#l1.offset(index)))
    for (const { host, size } of this.#entries(view)) {
      if (size > 0) lose(this.#lost, host, size, clusterSize)
    }
    if (known?.fresh) {
      // A copy that is not needed after all.
      this.#allocator.setReferences(known.offset, 0)
      this.#tables.delete(index)
    } else {
      await this.#leave(index)
    }
  }

  /** An L1 entry leaves its table, which others may use. */
  async #leave(index: number): Promise<void> {
    const { header, stored } = this.#image
    const offset = this.#l1.offset(index)
    lose(this.#lost, offset, header.clusterSize, header.clusterSize)
    const left = this.#l1.leave(index)
    if (left === undefined) return
    // Of a table that is used once the entry must say so: the last user gets one of its own.
    const cluster = offset / header.clusterSize
    if (stored.get(cluster) === undefined) await stored.load(cluster)
    const references = Number(stored.get(cluster)) - (this.#lost.get(cluster) ?? 0)
    if (references === 1) await this.get(left)
  }
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}
