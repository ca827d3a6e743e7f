import type { StoredRefcounts } from '../../check/stored-refcounts.ts'
import { readEntry, takesNewCluster } from '../../edit/edited-entries.ts'
import type { EditedImage } from '../../edit/edited-image.ts'
import { L1Table } from '../../edit/l1.ts'
import { BackupError, throwIfAborted } from '../../errors.ts'
import { bitmapTableSize } from '../../format/qcow2/bitmaps.ts'
import { MAX_DIRECTORY_ENTRY } from '../../format/qcow2/constants.ts'
import { l2EntrySize } from '../../format/qcow2/entries.ts'
import { l2Coverage } from '../../format/qcow2/validate.ts'
import { readAt } from '../../format/read.ts'
import { formatSize } from '../../units.ts'
import { type Change, isZero } from './changes.ts'

/** What is to be written into an image. */
export interface PlannedChanges {
  changes: AsyncIterable<readonly Change[]>
  /** Guest bytes from which on nothing below the image is seen. */
  below: number
  /** Of the disk when all is written, bytes. */
  size: number
  signal?: AbortSignal
}

/**
 * Makes sure that an image on a device, which does not grow, has free clusters for all that changes may
 * allocate, before any of it is written. Clusters that they free do not count.
 * @param bitmaps clusters that bitmaps may take besides
 * @throws BackupError BAD_TARGET; as the changes
 */
export async function requireFreeClusters(
  image: EditedImage,
  planned: PlannedChanges,
  bitmaps: number,
): Promise<void> {
  const { file, header, stored } = image
  const { clusterSize } = header
  const needed = await neededClusters(image, planned, bitmaps)
  const free = await freeClusters(stored, Math.floor(file.size / clusterSize))
  if (free >= needed) return
  const [has, needs] = [formatSize(free * clusterSize), formatSize(needed * clusterSize)]
  const why = `holds ${formatSize(file.size)}, of which ${has} are free; ${needs} may be needed`
  throw new BackupError('BAD_TARGET', file.path, why)
}

/** Clusters without a reference, of those that a device has. */
async function freeClusters(stored: StoredRefcounts, clusters: number): Promise<number> {
  const { perBlock } = stored
  let free = 0
  for (let first = 0; first < clusters; first += perBlock) {
    const end = Math.min(first + perBlock, clusters)
    if (!stored.hasBlock(first / perBlock)) {
      free += end - first
      continue
    }
    await stored.load(first)
    for (let cluster = first; cluster < end; cluster++) if (stored.get(cluster) === 0) free++
  }
  return free
}

async function neededClusters(
  image: EditedImage,
  { changes, below, size, signal }: PlannedChanges,
  bitmaps: number,
): Promise<number> {
  const { file, header, stored } = image
  const { clusterSize, backingFile, l1Size } = header
  const count = new Count(image, await L1Table.read(image), below, size)
  for await (const some of changes) {
    throwIfAborted(signal, file.path)
    for (const change of some) await count.add(change)
  }
  const clustersOf = (bytes: number) => Math.ceil(bytes / clusterSize)
  const l1Entries = Math.ceil(size / l2Coverage(header))
  const l1 = l1Entries > l1Size ? clustersOf(l1Entries * 8) : 0
  const shared = backingFile === undefined ? 0 : count.l1.shared().flat().length
  const needed = count.clusters + l1 + shared + bitmaps
  // Their refcounts: new blocks, and a table that moves to grow, by half and some entries.
  const blocks = Math.ceil(needed / stored.perBlock) + 2
  const highest = Math.ceil(file.size / clusterSize / stored.perBlock)
  const table = highest > stored.entries ? clustersOf((highest * 1.5 + 8) * 8) : 0
  return needed === 0 ? 0 : needed + blocks + table
}

/** Bitmaps of an image that get more bits, by their names, and those that are added. */
export interface ChangingBitmaps {
  changing: readonly string[]
  created: readonly { granularity: number }[]
}

/** Maximum clusters of the bitmaps that are stored anew: before the data, and when the disk grows. */
export function bitmapClusters(
  { header, bitmaps }: EditedImage,
  size: number,
  { changing, created }: ChangingBitmaps,
): number {
  const { clusterSize, virtualSize } = header
  const isChanging = new Set(changing)
  const grows = size > virtualSize
  const stored = bitmaps.filter(({ name }) => grows || isChanging.has(name))
  const all = [
    ...stored.map(({ granularityBits }) => granularityBits),
    ...created.map(({ granularity }) => Math.log2(granularity)),
  ]
  if (all.length === 0) return 0
  const disk = { ...header, virtualSize: Math.max(size, virtualSize) }
  let clusters = 0
  for (const granularityBits of all) {
    const entries = bitmapTableSize(disk, { granularityBits })
    clusters += entries + Math.ceil((entries * 8) / clusterSize)
  }
  const names = bitmaps.length + created.length
  return (clusters + Math.ceil((names * MAX_DIRECTORY_ENTRY) / clusterSize)) * (grows ? 2 : 1)
}

/** Counts the clusters that changes take, as a batch would allocate them. */
class Count {
  clusters = 0
  readonly l1: L1Table
  readonly #image: EditedImage
  readonly #below: number
  readonly #size: number
  readonly #coverage: number
  /** The L1 entry read last, and its table. */
  #index = -1
  #table: DataView | undefined

  /** @param below bytes of the disk below the image */
  constructor(image: EditedImage, l1: L1Table, below: number, size: number) {
    this.l1 = l1
    this.#image = image
    this.#below = below
    this.#size = size
    this.#coverage = l2Coverage(image.header)
  }

  async add(change: Change): Promise<void> {
    if (change.kind === 'cluster') {
      const zero = change.mappings.every(isZero)
      // A part of a cluster that becomes zero changes nothing where nothing is.
      if (zero && !this.#hasTable(change.start) && change.start >= this.#below) return
      return await this.#cluster(change.start)
    }
    const { clusterSize, version } = this.#image.header
    const end = Math.min(change.start + change.length, this.#below)
    if (version < 3) {
      for (let at = change.start; at < end; at += clusterSize) await this.#cluster(at)
      return
    }
    // An L2 table for each L1 entry that has none for itself: also one of zeroes alone.
    const last = Math.min(end, this.#size)
    for (let at = change.start; at < last; at += this.#coverage - (at % this.#coverage)) {
      this.#enter(at)
      const whole = at % this.#coverage === 0
      if (whole && this.#hasOwnTable(at)) this.clusters++
    }
  }

  async #cluster(start: number): Promise<void> {
    const { header } = this.#image
    this.#enter(start)
    this.#table ??= await this.#read(start)
    if (!this.#table) {
      this.clusters++
      return
    }
    const at = Math.floor((start % this.#coverage) / header.clusterSize) * l2EntrySize(header)
    if (takesNewCluster(readEntry(this.#table, at, header))) this.clusters++
  }

  /** Goes on to the L1 entry that maps a guest offset, which may need a table of its own. */
  #enter(start: number): void {
    const index = Math.floor(start / this.#coverage)
    if (index === this.#index) return
    this.#index = index
    this.#table = undefined
    if (!this.#hasOwnTable(start)) this.clusters++
  }

  async #read(start: number): Promise<DataView | undefined> {
    if (!this.#hasTable(start)) return undefined
    const { file, header } = this.#image
    const bytes = await readAt(file, this.l1.offset(this.#indexOf(start)), header.clusterSize)
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  }

  #hasTable(start: number): boolean {
    const index = this.#indexOf(start)
    return index < this.#image.header.l1Size && this.l1.offset(index) !== 0
  }

  #hasOwnTable(start: number): boolean {
    return this.#hasTable(start) && this.l1.copied(this.#indexOf(start))
  }

  #indexOf(start: number): number {
    return Math.floor(start / this.#coverage)
  }
}
