import { Allocator } from '../../edit/allocator.ts'
import { runEdit } from '../../edit/edit.ts'
import {
  readEntry,
  takesNewCluster,
  writeData,
  writeUnallocated,
  writeZero,
} from '../../edit/edited-entries.ts'
import type { EditedImage } from '../../edit/edited-image.ts'
import type { L1Table } from '../../edit/l1.ts'
import { L2Tables } from '../../edit/l2.ts'
import { type Lost, lose } from '../../edit/release.ts'
import type { Range } from '../../extents/range-set.ts'
import { l2EntrySize } from '../../format/qcow2/entries.ts'
import { l2Coverage } from '../../format/qcow2/validate.ts'
import type { ImageDisk } from '../../image/steps.ts'
import { type Layer, readLayers } from '../../source/layer.ts'
import type { Mapping } from '../../source/source.ts'
import { type Change, covers, isZero } from './changes.ts'
import { joined, stretches } from './placed.ts'

/** An image, as a batch writes to it. */
export interface ChangeDisk extends ImageDisk {
  /** Writes mappings, ordered by where in the image they go. All that was written is durable then. */
  copy(mappings: readonly Mapping[], end: number): Promise<void>
  /** Deallocates areas that nothing refers to, in the file system. */
  deallocate(areas: readonly Range[]): Promise<void>
}

/** An image while changes are written into it. */
export interface BatchImage {
  image: EditedImage
  l1: L1Table
  disk: ChangeDisk
  /** The content of the image and its backing chain before this batch. */
  layers: readonly Layer[]
  /** Guest offset from which its backing file is not visible: unallocated clusters are zero there. */
  below: number
  /** Of the disk when all is written, bytes. */
  size: number
  /** Offset below which no free cluster is to be looked for, bytes. */
  searchFrom: number
}

/** Bounds of a batch: its memory, and the work repeated after a crash. */
const MAX_DATA_BYTES = 512 * 2 ** 20
const MAX_PIECES = 65536
const MAX_TABLE_BYTES = 32 * 2 ** 20
const MAX_LOST_CLUSTERS = 2 ** 18
/** Minimum run of freed clusters that is deallocated in the file system, bytes. */
const MIN_FREED_BYTES = 2 ** 20

/**
 * Changes of an image that become visible together. Data goes into clusters that are not in use, or
 * into those of the image that images above it hide; references to it are written when it is
 * durable; and clusters no longer referred to are freed last. So the image is sound whenever this
 * ends, and the guest content seen through the images above never changes.
 */
export class Batch {
  readonly #target: BatchImage
  readonly #allocator: Allocator
  readonly #tables: L2Tables
  readonly #mappings: Mapping[] = []
  readonly #lost: Lost = new Map()
  readonly #entrySize: number
  /** Guest bytes that one L2 table maps. */
  readonly #coverage: number
  #data = 0
  #end = 0

  constructor(target: BatchImage) {
    const { image, l1, searchFrom } = target
    const { file, header, stored } = image
    this.#target = target
    this.#allocator = new Allocator(file, header, stored, searchFrom)
    this.#tables = new L2Tables(image, l1, this.#allocator, this.#lost)
    this.#entrySize = l2EntrySize(header)
    this.#coverage = l2Coverage(header)
  }

  get isFull(): boolean {
    return (
      this.#data >= MAX_DATA_BYTES ||
      this.#mappings.length >= MAX_PIECES ||
      this.#tables.bytes >= MAX_TABLE_BYTES ||
      this.#lost.size >= MAX_LOST_CLUSTERS
    )
  }

  /** Where to look for free clusters after this batch, bytes. */
  get searchFrom(): number {
    return this.#allocator.searchFrom
  }

  /**
   * Takes a change, or of a large one its beginning.
   * @returns the part that is left
   */
  async add(change: Change): Promise<Change | undefined> {
    if (change.kind === 'cluster') {
      await this.#fill(change.start, change.mappings)
      return undefined
    }
    let { start, length } = change
    while (length > 0) {
      if (this.isFull) return { kind: 'zero', start, length }
      const first = start - (start % this.#coverage)
      const end = Math.min(start + length, first + this.#coverage)
      const whole = start === first && end >= Math.min(first + this.#coverage, this.#target.size)
      if (whole) await this.#zeroTable(first / this.#coverage)
      else await this.#zeroEntries(start, end)
      length -= end - start
      start = end
    }
    return undefined
  }

  /** Stores mappings in a cluster. */
  async #fill(start: number, mappings: readonly Mapping[]): Promise<void> {
    const { image, size } = this.#target
    const { header } = image
    const { clusterSize } = header
    const end = Math.min(start + clusterSize, size)
    const at = this.#entryAt(start)
    // Skip writes that change nothing.
    if (mappings.every(isZero) && (await this.#readsZero(start))) return
    const { view } = await this.#tables.get(this.#indexOf(start))
    const entry = readEntry(view, at, header)
    const reused = !takesNewCluster(entry)
    if (reused && entry.kind === 'data') {
      for (const mapping of mappings) this.#write(mapping, start, entry.host)
      return
    }
    const host = reused ? entry.host : await this.#allocator.allocate(1)
    const content = covers(mappings, start, end)
      ? mappings
      : await this.#filledUp(start, end, mappings)
    for (const mapping of content) this.#write(mapping, start, host)
    if (end < start + clusterSize) {
      this.#write({ kind: 'zero', start: end, length: start + clusterSize - end }, start, host)
    }
    if (!reused && entry.size > 0) lose(this.#lost, entry.host, entry.size, clusterSize)
    writeData(view, at, host, header.extendedL2)
  }

  /** Mappings, with the content of the image and its backing chain between them. */
  async #filledUp(start: number, end: number, mappings: readonly Mapping[]): Promise<Mapping[]> {
    const all: Mapping[] = []
    let at = start
    for (const mapping of [...mappings, undefined]) {
      const length = (mapping?.start ?? end) - at
      for await (const batch of readLayers(this.#target.layers, { start: at, length })) {
        all.push(...batch)
      }
      if (!mapping) break
      all.push(mapping)
      at = mapping.start + mapping.length
    }
    return all
  }

  /** @param host where the cluster from `start` is */
  #write(mapping: Mapping, start: number, host: number): void {
    const moved = { ...mapping, start: host + mapping.start - start }
    this.#mappings.push(moved)
    this.#data += mapping.length
    this.#end = Math.max(this.#end, moved.start + moved.length)
  }

  async #readsZero(start: number): Promise<boolean> {
    const { image, below } = this.#target
    const index = this.#indexOf(start)
    if (!this.#tables.has(index)) return start >= below
    const { view } = await this.#tables.get(index)
    const { kind } = readEntry(view, this.#entryAt(start), image.header)
    return kind === 'zero' || (kind === 'unallocated' && start >= below)
  }

  /** Makes the clusters from `start` to `end`, which one table maps, read as zero. */
  async #zeroEntries(start: number, end: number): Promise<void> {
    const { image, below } = this.#target
    const { clusterSize, extendedL2, version } = image.header
    for (let at = start; at < end; at += clusterSize) {
      if (await this.#readsZero(at)) continue
      if (at < below && version < 3) {
        // There is no zero flag in version 2.
        await this.#fillZero(at)
        continue
      }
      const { view } = await this.#tables.get(this.#indexOf(start))
      const place = this.#entryAt(at)
      const { host, size } = readEntry(view, place, image.header)
      if (size > 0) lose(this.#lost, host, size, clusterSize)
      if (at < below) writeZero(view, place, extendedL2)
      else writeUnallocated(view, place, extendedL2)
    }
  }

  async #fillZero(start: number): Promise<void> {
    const { image, size } = this.#target
    const length = Math.min(image.header.clusterSize, size - start)
    await this.#fill(start, [{ kind: 'zero', start, length }])
  }

  /** Makes all that an L1 entry maps read as zero. */
  async #zeroTable(index: number): Promise<void> {
    const { image, below, size } = this.#target
    const start = index * this.#coverage
    if (start >= below) {
      if (this.#tables.has(index)) await this.#tables.remove(index)
    } else if (image.header.version < 3) {
      await this.#zeroEntries(start, Math.min(start + this.#coverage, size))
    } else {
      await this.#tables.zero(index)
    }
  }

  /** The L1 entry that maps a guest offset. */
  #indexOf(start: number): number {
    return Math.floor(start / this.#coverage)
  }

  #entryAt(start: number): number {
    const { clusterSize } = this.#target.image.header
    return Math.floor((start % this.#coverage) / clusterSize) * this.#entrySize
  }

  /** Writes all, each step durable before the next. */
  async write(): Promise<void> {
    const { image, disk, l1 } = this.#target
    const tables = this.#tables.finish()
    const free = await runEdit(image, disk, {
      allocator: this.#allocator,
      lost: this.#lost,
      // The data may also go where images above hide it.
      prepare: async (fresh) => {
        for (const write of [...fresh, ...tables.fresh]) await disk.write(write)
        await disk.copy(joined(this.#mappings), this.#end)
      },
      naming: () => [[...tables.changed, ...l1.changes()]],
    })
    await disk.deallocate(stretches(free, image.header.clusterSize, MIN_FREED_BYTES))
  }
}
