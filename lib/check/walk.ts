import {
  clusterType,
  compressedRange,
  hasAny,
  hexEntry,
  hostOffset,
  isCopied,
  L1_RESERVED,
  L2_RESERVED,
  l2EntrySize,
  plainHost,
  plainRun,
  sameEntries,
  subclusters,
} from '../format/qcow2/entries.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import type { OpenFile } from '../image/file.ts'
import { type L1Table, l2Tables, type NamedTable } from './l2-tables.ts'
import type { ReferenceCounts } from './reference-counts.ts'
import { type CheckFailed, IO_ERROR, type Report } from './report.ts'

/** Bytes of an L2 table between two turns of the event loop. */
const SLICE = 64 * 1024

/** An entry of an L2 table that is to become zero: its cluster lies nowhere a cluster can. */
export interface BadEntry {
  table: number
  index: number
}

/** Walks mapping tables, counts their references, and reports invalid entries. */
export class Walk {
  /** Entries that can be repaired one by one. Filled only in a repair. */
  readonly badEntries: BadEntry[] = []
  /** Each active entry that names a cluster has the COPIED flag. */
  allCopied = true
  /** Offsets of tables in which there is nothing but zero: they may be shared by all of a disk. */
  readonly #empty = new Set<number>()
  readonly #file: OpenFile
  readonly #header: Qcow2Header
  readonly #counts: ReferenceCounts
  readonly #report: Report
  readonly #repair: boolean

  /** @param repair entries that can be repaired one by one are, later */
  constructor(
    file: OpenFile,
    header: Qcow2Header,
    counts: ReferenceCounts,
    report: Report,
    repair: boolean,
  ) {
    this.#file = file
    this.#header = header
    this.#counts = counts
    this.#report = report
    this.#repair = repair
  }

  /**
   * Goes through an L1 table and its L2 tables.
   * @param active they are those that the guest sees: their clusters go into the statistics
   * @throws CheckFailed
   */
  async l1(table: L1Table, active: boolean): Promise<void> {
    const { clusterSize } = this.#header
    if (table.entries === 0) return
    // Snapshots may all name one table, each entry of which is checked.
    this.#report.table(Math.min(table.entries * 8, this.#file.size))
    this.#counts.add(table.offset, table.entries * 8)
    for await (const batch of l2Tables(this.#file, clusterSize, table, this.#empty)) {
      for (const named of batch) {
        if (!named.leftOut) this.#report.table(clusterSize)
        this.#l1Entry(named, active)
        if (!named.leftOut) await this.#table(named, active)
      }
    }
  }

  #l1Entry({ l1, at, offset }: NamedTable, active: boolean): void {
    const { clusterSize } = this.#header
    if (hasAny(l1, at, L1_RESERVED)) {
      const shown = hexEntry(l1, at)
      this.#report.corruption(`ERROR found L1 entry with reserved bits set: ${shown}`)
    }
    if (active && !isCopied(l1, at)) this.allCopied = false
    this.#counts.add(offset, clusterSize)
    if (offset % clusterSize !== 0) {
      this.#report.corruption(
        `ERROR l2_offset=${offset.toString(16)}: Table is not cluster aligned; L1 entry corrupted`,
      )
    }
  }

  async #table({ offset, l2 }: NamedTable, active: boolean): Promise<void> {
    if (l2 === undefined) throw this.#unreadable('check_refcounts_l2')
    const { lines } = this.#report
    const { additions } = this.#counts
    let next = 0
    for (let from = 0; from < l2.byteLength; from += SLICE) {
      const pause = this.#report.step()
      if (pause) await pause
      const to = Math.min(from + SLICE, l2.byteLength)
      next = this.#l2(l2, from, to, offset, active, next)
    }
    if (lines === this.#report.lines && additions === this.#counts.additions) {
      this.#empty.add(offset)
    }
  }

  #unreadable(where: string): CheckFailed {
    this.#report.say(`ERROR: I/O error in ${where}`)
    this.#report.result.checkErrors++
    return this.#report.failed('an L2 table cannot be read', IO_ERROR)
  }

  /**
   * Goes through the bytes `from` to `end` of an L2 table.
   * @param expected where the next cluster is if it is not a fragment; 0: nowhere yet
   * @returns the same for the one after them
   */
  #l2(
    table: DataView,
    from: number,
    end: number,
    offset: number,
    active: boolean,
    expected: number,
  ): number {
    const header = this.#header
    const size = l2EntrySize(header)
    let next = expected
    for (let at = from; at < end; at += size) {
      if (isEmpty(table, at, size)) continue
      const host = header.extendedL2 ? 0 : plainHost(table, at, header.clusterSize)
      if (host !== 0) {
        const left = (end - at) / size
        const run = plainRun(table, at, left, header.clusterSize)
        // All entries of a table may name one cluster.
        const again = run > 1 ? 0 : sameEntries(table, at, left - 1)
        if (active && !isCopied(table, at)) this.allCopied = false
        next = this.#inUse(host, run, active, next)
        if (again > 0) this.#inUseAgain(host, again, active)
        at += (run - 1 + again) * size
        continue
      }
      const type = clusterType(table, at, header)
      if (type !== 'compressed' && hasAny(table, at, L2_RESERVED)) {
        const shown = hexEntry(table, at)
        this.#report.corruption(`ERROR found l2 entry with reserved bits set: ${shown}`)
      }
      if (type === 'compressed') this.#compressed(table, at, active)
      else if (type === 'data' || type === 'zero+host') {
        next = this.#standard(table, at, offset, active, next)
      } else if (header.extendedL2 && subclusters(table, at).data !== 0) {
        this.#report.corruption('ERROR: Unallocated cluster has non-zero subcluster allocation map')
      }
    }
    return next
  }

  #compressed(table: DataView, at: number, active: boolean): void {
    const { clusterBits, extendedL2, externalDataFile } = this.#header
    const report = this.#report
    const offsetBits = BigInt(62 - (clusterBits - 8))
    const exact = () => BigInt.asUintN(Number(offsetBits), table.getBigUint64(at))
    let entry = table.getBigUint64(at)
    if (isCopied(table, at)) {
      report.corruption(
        `ERROR: coffset=0x${exact().toString(16)}: copied flag must never be set for compressed clusters`,
      )
      entry = BigInt.asUintN(63, entry)
    }
    const which = `ERROR compressed cluster ${at / l2EntrySize(this.#header)} with`
    if (externalDataFile) {
      report.corruption(`${which} data file, entry=0x${entry.toString(16)}`)
      return
    }
    if (extendedL2 && table.getBigUint64(at + 8) !== 0n) {
      const bitmap = 'non-zero subcluster allocation bitmap'
      report.corruption(`${which} ${bitmap}, entry=0x${entry.toString(16)}`)
      return
    }
    const { offset, size } = compressedRange(table, at, clusterBits)
    this.#counts.add(offset, size, Number.isSafeInteger(offset) ? undefined : exact())
    if (!active) return
    report.result.allocatedClusters++
    report.result.compressedClusters++
    // Its neighbour may be in the same sector, which then is read twice.
    report.result.fragmentedClusters++
  }

  /**
   * A cluster that is stored as it is.
   * @param next where it is if it is not a fragment; 0: nowhere
   * @returns the same for the one after it
   */
  #standard(table: DataView, at: number, l2Offset: number, active: boolean, next: number): number {
    const header = this.#header
    const report = this.#report
    const host = hostOffset(table, at)
    const shown = () => host.toString(16)
    if (active && !isCopied(table, at)) this.allCopied = false
    if (header.extendedL2) {
      const { zeros, data } = subclusters(table, at)
      if ((zeros & data) !== 0) {
        report.corruption(
          `ERROR offset=${shown()}: Allocated cluster has corrupted subcluster allocation bitmap`,
        )
      }
    }
    if (host % header.clusterSize !== 0) {
      if (holdsData(table, at, header.extendedL2)) {
        report.corruption(
          `ERROR offset=${shown()}: Data cluster is not properly aligned; L2 entry corrupted.`,
        )
      } else {
        const what = 'Preallocated cluster is not properly aligned; L2 entry corrupted.'
        report.say(`${this.#repair ? 'Repairing' : 'ERROR'} offset=${shown()}: ${what}`)
        if (this.#repair) {
          // Its cluster is no longer in use.
          this.badEntries.push({ table: l2Offset, index: at / l2EntrySize(header) })
          return next
        }
        report.result.corruptions++
      }
    }
    return this.#inUse(host, 1, active, next)
  }

  /** Counts uncompressed, contiguous clusters; for `next` see above. */
  #inUse(host: number, clusters: number, active: boolean, next: number): number {
    const { clusterSize, externalDataFile } = this.#header
    const { result } = this.#report
    if (active) {
      result.allocatedClusters += clusters
      if (next !== 0 && host !== next) result.fragmentedClusters++
    }
    if (!externalDataFile) this.#counts.addRun(host, clusters)
    return active ? host + clusters * clusterSize : next
  }

  /** Counts the cluster that was counted last several times more, as `#inUse` would each time. */
  #inUseAgain(host: number, times: number, active: boolean): void {
    const { result } = this.#report
    if (active) {
      result.allocatedClusters += times
      result.fragmentedClusters += times
    }
    if (!this.#header.externalDataFile) this.#counts.addTimes(host, times)
  }
}

function isEmpty(table: DataView, at: number, size: number): boolean {
  if (table.getUint32(at) !== 0 || table.getUint32(at + 4) !== 0) return false
  return size === 8 || (table.getUint32(at + 8) === 0 && table.getUint32(at + 12) === 0)
}

/** Whether the guest reads anything from the cluster. */
function holdsData(table: DataView, at: number, extendedL2: boolean): boolean {
  if (extendedL2) return subclusters(table, at).data !== 0
  return (table.getUint32(at + 4) & 1) === 0
}
