import { type StoredRefcounts, Unreadable } from '../check/stored-refcounts.ts'
import { BackupError } from '../errors.ts'
import { MAX_REFCOUNT_TABLE_BYTES } from '../format/qcow2/constants.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { encodeRefcount } from '../format/qcow2/refcounts.ts'
import type { OpenFile } from '../image/file.ts'
import type { Write } from '../image/steps.ts'
import { Turns } from '../turns.ts'

/** Clusters of a table that is at another place now. */
export interface MovedTable {
  offset: number
  clusters: number
}

/** Writes that make clusters count as in use, in order, each durable before the next. */
export interface Allocation {
  /** New refcount blocks and a new refcount table: in clusters that nothing refers to yet. */
  fresh: Write[]
  /** Entries of the refcount table that name the new blocks; none if the table is a new one. */
  entries: Write[]
  /** The new refcount table, for the header. */
  table?: MovedTable
  /** Refcount blocks that were there before. */
  blocks: Write[]
}

/**
 * Hands out clusters that an image does not use, by its own refcounts. Nothing is written; what has
 * to be is gathered. REQUIRES: the image was checked and is sound, and nobody else writes to it.
 */
export class Allocator {
  readonly #header: Qcow2Header
  readonly #stored: StoredRefcounts
  readonly #path: string
  /** Clusters that were handed out, and how many references they get. */
  readonly #taken = new Map<number, number>()
  /** New refcount blocks: their cluster, by their index. */
  readonly #blocks = new Map<number, number>()
  readonly #turns: Turns
  #capacity: number
  #table: MovedTable | undefined
  /** No cluster below it is free. */
  #from = 0

  /**
   * @param stored the image's refcounts
   * @param searchFrom offset below which none is to be looked for, bytes
   */
  constructor({ path }: OpenFile, header: Qcow2Header, stored: StoredRefcounts, searchFrom = 0) {
    this.#header = header
    this.#stored = stored
    this.#path = path
    this.#turns = new Turns(path)
    this.#capacity = stored.entries
    this.#from = Math.ceil(searchFrom / header.clusterSize)
  }

  /** Every cluster below it was found in use; bytes. */
  get searchFrom(): number {
    return this.#from * this.#header.clusterSize
  }

  /** Gives a cluster that was handed out, at `offset`, `references` references instead of one. */
  setReferences(offset: number, references: number): void {
    this.#taken.set(offset / this.#header.clusterSize, references)
  }

  /**
   * Takes contiguous clusters.
   * @returns the offset of the first, bytes
   * @throws BackupError BAD_IMAGE, UNSUPPORTED if the image cannot become that large, IO
   */
  async allocate(count: number): Promise<number> {
    const first = await this.#find(count)
    if (count === 1) this.#from = first + 1
    await this.#take(first, count)
    return first * this.#header.clusterSize
  }

  /** The writes that make the clusters count as used. To be called once. */
  async finish(): Promise<Allocation> {
    const { clusterSize, refcountOrder, refcountTableOffset } = this.#header
    const perBlock = this.#stored.perBlock
    const fresh = new Map<number, Write>()
    for (const [index, cluster] of this.#blocks) {
      fresh.set(index, { offset: cluster * clusterSize, bytes: Buffer.alloc(clusterSize) })
    }
    const changed = new Map<number, Write>()
    for (const [cluster, references] of this.#taken) {
      const pause = this.#turns.step()
      if (pause) await pause
      const index = Math.floor(cluster / perBlock)
      let write = fresh.get(index) ?? changed.get(index)
      if (!write) {
        await this.#load(cluster)
        write = this.#stored.set(cluster, references)
        changed.set(index, write)
      }
      encodeRefcount(write.bytes, cluster % perBlock, 2 ** refcountOrder, references)
    }
    const allocation = { fresh: [...fresh.values()], blocks: [...changed.values()] }
    if (!this.#table) {
      const entries = [...this.#blocks].map(([index, cluster]) => {
        return { offset: refcountTableOffset + index * 8, bytes: entry(cluster * clusterSize) }
      })
      return { ...allocation, entries }
    }
    const bytes = Buffer.alloc(this.#table.clusters * clusterSize)
    for (let index = 0; index < this.#stored.stored; index++) {
      entry(this.#stored.entry(index).offset).copy(bytes, index * 8)
    }
    for (const [index, cluster] of this.#blocks) entry(cluster * clusterSize).copy(bytes, index * 8)
    allocation.fresh.push({ offset: this.#table.offset, bytes })
    return { ...allocation, entries: [], table: this.#table }
  }

  async #take(first: number, count: number): Promise<void> {
    for (let cluster = first; cluster < first + count; cluster++) this.#taken.set(cluster, 1)
    const perBlock = this.#stored.perBlock
    const last = Math.floor((first + count - 1) / perBlock)
    for (let index = Math.floor(first / perBlock); index <= last; index++) {
      await this.#requireBlock(index)
    }
  }

  /** Allocates a refcount block for a range of clusters. */
  async #requireBlock(index: number): Promise<void> {
    if (this.#stored.hasBlock(index) || this.#blocks.has(index)) return
    if (index >= this.#capacity) {
      await this.#growTable(index)
      // The table may lie in the same range.
      if (this.#blocks.has(index)) return
    }
    // In its own range, if there is room: then it needs no other.
    const start = index * this.#stored.perBlock
    let cluster = start
    while (cluster < start + this.#stored.perBlock && this.#taken.has(cluster)) cluster++
    if (cluster === start + this.#stored.perBlock) cluster = await this.#find(1)
    this.#blocks.set(index, cluster)
    await this.#take(cluster, 1)
  }

  /** Takes clusters for a refcount table that has an entry for a block. */
  async #growTable(index: number): Promise<void> {
    const { clusterSize } = this.#header
    // Half as much again, plus the table's own clusters.
    const entries = Math.ceil((index + 1) * 1.5) + 8
    const clusters = Math.ceil((entries * 8) / clusterSize)
    if (clusters * clusterSize > MAX_REFCOUNT_TABLE_BYTES) {
      throw new BackupError('UNSUPPORTED', this.#path, 'its refcount table cannot grow any more')
    }
    this.#capacity = (clusters * clusterSize) / 8
    const first = await this.#find(clusters)
    this.#table = { offset: first * clusterSize, clusters }
    await this.#take(first, clusters)
  }

  /** The first of `count` clusters that are free. */
  async #find(count: number): Promise<number> {
    let run = 0
    for (let cluster = this.#from; ; cluster++) {
      const pause = this.#turns.step()
      if (pause) await pause
      const known = this.#stored.get(cluster)
      // Not waited for each time: there may be millions.
      const refcount = typeof known === 'number' ? known : await this.#load(cluster)
      run = refcount === 0 && !this.#taken.has(cluster) ? run + 1 : 0
      if (run === count) return cluster - count + 1
    }
  }

  /** @returns the refcount of a cluster, whose block is in memory then */
  async #load(cluster: number): Promise<number | bigint> {
    let refcount = this.#stored.get(cluster)
    if (refcount === undefined) {
      await this.#stored.load(cluster)
      refcount = this.#stored.get(cluster)
    }
    if (refcount instanceof Unreadable || refcount === undefined) {
      throw new BackupError(
        'BAD_IMAGE',
        this.#path,
        `the refcount of cluster ${cluster} is missing`,
      )
    }
    return refcount
  }
}

function entry(offset: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(offset))
  return bytes
}
