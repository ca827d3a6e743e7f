import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { ClusterRanges } from './cluster-ranges.ts'
import type { Report } from './report.ts'

/** Clusters per page of counts. */
const PAGE_BITS = 16
const PAGE = 2 ** PAGE_BITS

type Page = Uint8Array | Uint16Array | Uint32Array

/** The maximum of clusters of a file that is checked. */
const MAX_CLUSTERS = 2 ** 31

/** Number of references to each cluster of an image: its correct refcounts. */
export class ReferenceCounts {
  /** Clusters that are known of: those of the file, and those that something refers to. */
  clusters: number
  /** How often something was counted. */
  additions = 0
  /** A cluster is referenced more than once. */
  shared = false
  readonly #clusterSize: number
  /** Clusters per byte: a power of two, and multiplying is exact and faster than dividing. */
  readonly #perByte: number
  /** Maximum count: the maximum of a refcount. */
  readonly #most: number
  readonly #bits: number
  #fileSize: number
  readonly #report: Report
  /** Clusters past the end of the file that something refers to. */
  readonly #missing = new ClusterRanges()
  readonly #pages: (Page | undefined)[] = []

  /** @param fileSize bytes, in whole sectors */
  constructor(header: Qcow2Header, fileSize: number, report: Report) {
    this.#clusterSize = header.clusterSize
    this.#perByte = 1 / header.clusterSize
    this.#bits = 2 ** header.refcountOrder
    this.#most = 2 ** this.#bits - 1
    this.#fileSize = fileSize
    this.#report = report
    this.clusters = Math.ceil(fileSize / header.clusterSize)
  }

  /**
   * Counts a reference to a range, that is to each cluster of which it has a byte. The last cluster
   * of a file may be cut short; references further past its end are corruption.
   * @param offset bytes
   * @param shown the offset, where a number cannot hold it
   */
  add(offset: number, bytes: number, shown?: bigint): void {
    if (bytes <= 0) return
    this.additions++
    const clusterSize = this.#clusterSize
    if (offset + bytes - this.#fileSize >= clusterSize) {
      this.#report.corruption(
        'ERROR: counting reference for region exceeding the end of the file by one cluster or more: ' +
          `offset 0x${(shown ?? BigInt(offset)).toString(16)} size 0x${bytes.toString(16)}`,
      )
      if (offset / clusterSize <= MAX_CLUSTERS) this.#missing.addBytes(offset, bytes, clusterSize)
      return
    }
    const last = Math.floor((offset + bytes - 1) * this.#perByte)
    let cluster = Math.floor(offset * this.#perByte)
    if (last >= this.clusters) this.clusters = last + 1
    // Page by page: this is done for every cluster of the image.
    while (cluster <= last) {
      const page = cluster >>> PAGE_BITS
      const first = page * PAGE
      const to = Math.min(last - first, PAGE - 1)
      this.#countIn(this.#pages[page] ?? this.#newPage(page), first, cluster - first, to)
      cluster = first + to + 1
    }
  }

  /**
   * Counts a reference to clusters that follow each other, as `add` would for each of them.
   * @param offset bytes; of a cluster
   */
  addRun(offset: number, clusters: number): void {
    const clusterSize = this.#clusterSize
    const bytes = clusters * clusterSize
    const inFile = offset + bytes - this.#fileSize < clusterSize
    if (inFile) this.add(offset, bytes)
    else for (let at = 0; at < bytes; at += clusterSize) this.add(offset + at, clusterSize)
  }

  /** Counts a reference to the cluster at `offset` several times, as `add` would each time. */
  addTimes(offset: number, times: number): void {
    const cluster = Math.floor(offset * this.#perByte)
    const page = cluster < this.clusters ? this.#pages[cluster >>> PAGE_BITS] : undefined
    const at = cluster & (PAGE - 1)
    if (page === undefined || page[at] === 0 || page[at] + times > this.#most) {
      for (let i = 0; i < times; i++) this.add(offset, this.#clusterSize)
      return
    }
    // It was counted before: it is in the file, and this is sharing.
    this.additions += times
    this.shared = true
    page[at] += times
  }

  get(cluster: number): number {
    const index = Math.floor(cluster / PAGE)
    const page = this.#pages[index]
    // Numbers of clusters may be large, and `%` of those is slow.
    return page === undefined ? 0 : page[cluster - index * PAGE]
  }

  /** The counts of clusters `from` to `to`, as far as they are in one page; undefined: all are 0. */
  part(from: number, to: number): Page | undefined {
    const index = Math.floor(from / PAGE)
    return this.#pages[index]?.subarray(from - index * PAGE, to - index * PAGE)
  }

  #set(cluster: number, count: number): void {
    if (cluster >= this.clusters) this.clusters = cluster + 1
    const index = Math.floor(cluster / PAGE)
    const page = this.#pages[index] ?? this.#newPage(index)
    page[cluster - index * PAGE] = count
  }

  /** The file has become `fileSize` bytes long. */
  grow(fileSize: number): void {
    this.#fileSize = fileSize
    this.clusters = Math.max(this.clusters, Math.ceil(fileSize / this.#clusterSize))
  }

  /** The first cluster from `cluster` on that may be referenced. */
  nextReferenced(cluster: number): number {
    let page = Math.floor(cluster / PAGE)
    if (this.#pages[page]) return cluster
    while (page < this.#pages.length && !this.#pages[page]) page++
    return page < this.#pages.length ? page * PAGE : this.clusters
  }

  /**
   * Takes the first `clusters` contiguous clusters, from `from` on, that nothing refers to, not even
   * beyond the end of the file: that reads as zero, and must not become something else.
   * @param taken what was not counted, too: the first cluster after what a cluster is taken by
   * @returns the first one
   */
  allocate(clusters: number, from: number, taken: (cluster: number) => number): number {
    let first = from
    for (let cluster = from; cluster - first < clusters; ) {
      const next = this.get(cluster) !== 0 ? cluster + 1 : taken(this.#missing.endOf(cluster))
      // A few claims may take billions of clusters: go on after them.
      if (next > cluster) first = next
      cluster = Math.max(cluster + 1, next)
    }
    for (let cluster = first; cluster < first + clusters; cluster++) this.#set(cluster, 1)
    return first
  }

  /** Counts a reference to the clusters `from` to `to` of a page, which starts at `first`. */
  #countIn(page: Page, first: number, from: number, to: number): void {
    for (let at = from; at <= to; at++) {
      const count = page[at]
      if (count !== 0) this.shared = true
      if (count < this.#most) page[at] = count + 1
      else this.#overflow(first + at)
    }
  }

  #overflow(cluster: number): void {
    this.#report.say(
      `ERROR: overflow cluster offset=0x${(cluster * this.#clusterSize).toString(16)}`,
    )
    this.#report.corruption(
      'Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a ' +
        'clean copy if the image cannot be opened for writing',
    )
  }

  #newPage(index: number): Page {
    const Counts = this.#bits <= 8 ? Uint8Array : this.#bits === 16 ? Uint16Array : Uint32Array
    const page = new Counts(PAGE)
    this.#pages[index] = page
    return page
  }
}
