import { type BackupError, badImage, ioError } from '../errors.ts'
import type { FileHandle } from '../files.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import type { OpenFile } from '../image/file.ts'
import { diskOf, type ImageDisk } from '../image/steps.ts'
import { roundUp } from '../units.ts'
import type { CheckedImage } from './checked-image.ts'
import { ClusterRanges } from './cluster-ranges.ts'
import { IO_ERROR, type Report } from './report.ts'
import type { StoredRefcounts } from './stored-refcounts.ts'

/**
 * Writes repairs to an image, in steps as every edit does: the data that one step relies on is durable
 * before it begins, so an image whose repair is interrupted is at most as broken as before, and can be
 * repaired again. A repair reads its own writes again, so they are not gathered.
 */
export class ImageWriter {
  readonly #path: string
  readonly #handle: FileHandle
  readonly #disk: ImageDisk
  readonly #clusterSize: number
  readonly #report: Report
  /** Clusters that a mapping table must not overlap. */
  #metadata = new ClusterRanges()

  #wrote = false

  /**
   * @param file open for writing
   * @param disk how it is written to; default: its file
   */
  constructor(
    { path, handle }: OpenFile,
    { clusterSize }: Qcow2Header,
    report: Report,
    disk = diskOf(handle),
  ) {
    this.#disk = disk
    this.#path = path
    this.#handle = handle
    this.#clusterSize = clusterSize
    this.#report = report
  }

  /** Records the clusters of metadata other than L2 tables. */
  protect({ header, snapshots, snapshotsSize }: CheckedImage, stored: StoredRefcounts): void {
    this.#metadata = new ClusterRanges()
    this.#add(0, 1)
    this.#add(header.l1TableOffset, header.l1Size * 8)
    this.#add(header.refcountTableOffset, header.refcountTableClusters * header.clusterSize)
    this.#add(header.snapshotsOffset, snapshotsSize)
    for (const { l1TableOffset, l1Size } of snapshots) this.#add(l1TableOffset, l1Size * 8)
    const { bitmaps } = header.extensions
    if (bitmaps) this.#add(bitmaps.directoryOffset, bitmaps.directorySize)
    for (let i = 0; i < stored.stored; i++) {
      const { offset } = stored.entry(i)
      if (offset !== 0) this.#add(offset, 1)
    }
  }

  #add(offset: number, bytes: number): void {
    this.#metadata.addBytes(offset, bytes, this.#clusterSize)
  }

  /** Whether a cluster holds something that nothing may be written over. */
  isMetadata(cluster: number): boolean {
    return this.#metadata.has(cluster)
  }

  /** The first cluster after the metadata that a cluster is in; of any other, the cluster itself. */
  endOfMetadata(cluster: number): number {
    return this.#metadata.endOf(cluster)
  }

  /** Whether an L2 table can be at an offset, and nothing else that is known is. */
  isTable(offset: number): boolean {
    return offset % this.#clusterSize === 0 && !this.isMetadata(offset / this.#clusterSize)
  }

  /**
   * Writes an L2 table.
   * @throws CheckFailed, also if something else is where the table is
   */
  async writeTable(offset: number, bytes: Buffer): Promise<void> {
    if (!this.isTable(offset)) {
      const overlap = badImage(this.#path, 'it lies over other metadata', IO_ERROR)
      this.#report.say('ERROR: Could not write L2 table; metadata overlap check failed', overlap)
      this.#report.result.checkErrors++
      throw this.#report.failed('an L2 table lies over other metadata', IO_ERROR)
    }
    await this.write(offset, bytes)
  }

  async write(offset: number, bytes: Buffer): Promise<void> {
    this.#wrote = true
    await this.#disk.write({ offset, bytes })
  }

  /** Ends a step: waits until all that was written is durable. */
  async flush(): Promise<void> {
    await this.#disk.sync()
  }

  /** Extends a changed file to a whole cluster, so that no part of the last one can be cut off. */
  async fillLastCluster(): Promise<void> {
    const now = await this.#handle.stat()
    const end = roundUp(now.size, this.#clusterSize)
    if (!this.#wrote || !now.isFile() || end === now.size) return
    await this.write(now.size, Buffer.alloc(end - now.size))
    await this.flush()
  }

  /**
   * Extends the file to `size` bytes.
   * @returns why it cannot be
   */
  async growTo(size: number): Promise<BackupError | undefined> {
    try {
      await this.#handle.truncate(size)
      return undefined
    } catch (error) {
      return ioError(this.#path, error)
    }
  }
}
