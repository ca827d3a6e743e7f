import { FIELD } from '../format/qcow2/constants.ts'
import { encodeRefcountTableFields } from '../format/qcow2/encode.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { encodeRefcount } from '../format/qcow2/refcounts.ts'
import type { ReferenceCounts } from './reference-counts.ts'
import type { ImageWriter } from './writer.ts'

/** Where the refcount table of an image is. */
export type RefcountTable = Pick<Qcow2Header, 'refcountTableOffset' | 'refcountTableClusters'>

/**
 * Writes refcounts anew, from the references alone, into clusters that nothing refers to; then lets
 * the header name them. The old ones, which are references still, become leaks.
 */
export async function rebuildRefcounts(
  header: Qcow2Header,
  counts: ReferenceCounts,
  writer: ImageWriter,
): Promise<RefcountTable> {
  const rebuild = new Rebuild(header, counts, writer)
  const table = await rebuild.run()
  await writer.flush()
  const { refcountTableOffset, refcountTableClusters } = table
  const field = encodeRefcountTableFields(refcountTableOffset, refcountTableClusters)
  await writer.write(FIELD.refcountTableOffset, field)
  await writer.flush()
  return table
}

class Rebuild {
  readonly #clusterSize: number
  readonly #bits: number
  readonly #perBlock: number
  readonly #counts: ReferenceCounts
  readonly #writer: ImageWriter
  /** Offsets of the new blocks, bytes; 0: none. Its length is whole clusters. */
  readonly #table: number[] = []

  constructor(header: Qcow2Header, counts: ReferenceCounts, writer: ImageWriter) {
    this.#clusterSize = header.clusterSize
    this.#bits = 2 ** header.refcountOrder
    this.#perBlock = (header.clusterSize * 8) / this.#bits
    this.#counts = counts
    this.#writer = writer
  }

  async run(): Promise<RefcountTable> {
    await this.#writeBlocks(0, this.#counts.clusters)
    for (;;) {
      // The table has references too, whose blocks may be new ones, for which it must be longer.
      const entries = this.#table.length
      const clusters = Math.ceil((entries * 8) / this.#clusterSize)
      const first = this.#allocate(clusters, 0)
      await this.#writeBlocks(first, first + clusters)
      if (this.#table.length > entries) continue
      const bytes = Buffer.alloc(clusters * this.#clusterSize)
      for (const [i, offset] of this.#table.entries()) bytes.writeBigUInt64BE(BigInt(offset), i * 8)
      await this.#writer.write(first * this.#clusterSize, bytes)
      return {
        refcountTableOffset: first * this.#clusterSize,
        refcountTableClusters: clusters,
      }
    }
  }

  /** Writes the blocks of all referenced clusters from `first` to before `end`, and their own. */
  async #writeBlocks(first: number, end: number): Promise<void> {
    let last = end
    let free = 0
    for (let cluster = first; cluster < last; cluster++) {
      cluster = this.#counts.nextReferenced(cluster)
      if (cluster >= last) break
      if (this.#counts.get(cluster) === 0) continue
      const index = Math.floor(cluster / this.#perBlock)
      if (!this.#table[index]) {
        // In a block that is yet to be written: this one, or a later one.
        free = this.#allocate(1, Math.max(free, index * this.#perBlock))
        last = Math.max(last, free + 1)
        this.#enter(index, free * this.#clusterSize)
      }
      await this.#writer.write(this.#table[index], this.#block(index))
      cluster = (index + 1) * this.#perBlock - 1
    }
  }

  #enter(index: number, offset: number): void {
    const perCluster = this.#clusterSize / 8
    const length = Math.ceil((index + 1) / perCluster) * perCluster
    while (this.#table.length < length) this.#table.push(0)
    this.#table[index] = offset
  }

  #block(index: number): Buffer {
    const block = Buffer.alloc(this.#clusterSize)
    for (let n = 0; n < this.#perBlock; n++) {
      const count = this.#counts.get(index * this.#perBlock + n)
      if (count !== 0) encodeRefcount(block, n, this.#bits, count)
    }
    return block
  }

  #allocate(clusters: number, from: number): number {
    return this.#counts.allocate(clusters, from, (cluster) => this.#writer.isMetadata(cluster))
  }
}
