import { FIELD, MAX_REFCOUNT_TABLE_BYTES } from '../format/qcow2/constants.ts'
import { encodeRefcountTableFields } from '../format/qcow2/encode.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { encodeRefcount } from '../format/qcow2/refcounts.ts'
import type { ReferenceCounts } from './reference-counts.ts'
import { type Report, TOO_LARGE } from './report.ts'
import type { ImageWriter } from './writer.ts'

/** Where the refcount table of an image is. */
export type RefcountTable = Pick<Qcow2Header, 'refcountTableOffset' | 'refcountTableClusters'>

/**
 * Rebuilds the refcounts, from the references alone, in clusters that nothing refers to; then makes
 * the header name them. The old ones, which are references still, become leaks.
 * @throws CheckFailed if the new table would be larger than any image may have, before the header
 * names it
 */
export async function rebuildRefcounts(
  header: Qcow2Header,
  counts: ReferenceCounts,
  writer: ImageWriter,
  report: Report,
): Promise<RefcountTable> {
  const rebuild = new Rebuild(header, counts, writer, report)
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
  readonly #report: Report
  /** Offsets of the new blocks, bytes, by their index. */
  readonly #blocks = new Map<number, number>()
  /** Clusters of the new table. */
  #tableClusters = 0

  constructor(header: Qcow2Header, counts: ReferenceCounts, writer: ImageWriter, report: Report) {
    this.#clusterSize = header.clusterSize
    this.#bits = 2 ** header.refcountOrder
    this.#perBlock = (header.clusterSize * 8) / this.#bits
    this.#counts = counts
    this.#writer = writer
    this.#report = report
  }

  async run(): Promise<RefcountTable> {
    await this.#writeBlocks(0, this.#counts.clusters)
    for (;;) {
      // The table has references too, whose blocks may be new ones, for which it must be longer.
      const clusters = this.#tableClusters
      const first = this.#allocate(clusters, 0)
      await this.#writeBlocks(first, first + clusters)
      if (this.#tableClusters > clusters) continue
      const bytes = Buffer.alloc(clusters * this.#clusterSize)
      for (const [i, offset] of this.#blocks) bytes.writeBigUInt64BE(BigInt(offset), i * 8)
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
      let offset = this.#blocks.get(index)
      if (offset === undefined) {
        // In a block that is yet to be written: this one, or a later one.
        free = this.#allocate(1, Math.max(free, index * this.#perBlock))
        last = Math.max(last, free + 1)
        offset = free * this.#clusterSize
        this.#enter(index, offset)
      }
      await this.#writer.write(offset, this.#block(index))
      cluster = (index + 1) * this.#perBlock - 1
    }
  }

  #enter(index: number, offset: number): void {
    this.#blocks.set(index, offset)
    const clusters = Math.ceil(((index + 1) * 8) / this.#clusterSize)
    // Nothing, QEMU neither, could open the image again.
    if (clusters * this.#clusterSize > MAX_REFCOUNT_TABLE_BYTES) {
      throw this.#report.failed('its refcount table would be too large', TOO_LARGE)
    }
    this.#tableClusters = Math.max(this.#tableClusters, clusters)
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
    return this.#counts.allocate(clusters, from, (cluster) => this.#writer.endOfMetadata(cluster))
  }
}
