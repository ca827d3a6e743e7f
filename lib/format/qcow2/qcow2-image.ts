import { badImage } from '../../errors.ts'
import { inFile, malformed } from '../format-error.ts'
import { type ImageFile, readAt } from '../read.ts'
import { HostBounds } from './bounds.ts'
import { SUBCLUSTERS } from './constants.ts'
import { hostOffset, l2EntrySize } from './entries.ts'
import { readFirstCluster } from './first-cluster.ts'
import { decodeHeader, type HeaderOptions } from './header.ts'
import type { Qcow2Header } from './header-fields.ts'
import { PART, TableCache, type TablePart } from './table-cache.ts'
import { decodeL2, type Run, type TableLayout } from './tables.ts'
import { l2Coverage, requireActiveTable, requireReadable } from './validate.ts'
import { DATA_OVER_AND_OVER, DataWork, OVER_AND_OVER, TableWork } from './work.ts'

/** A stretch of the guest, `start` to `end`, that one part of a table maps. */
export interface TableWindow {
  readonly start: number
  readonly end: number
  /**
   * The runs of the guest bytes `from` to `to`, which lie in the window.
   * @throws BackupError BAD_IMAGE for a malformed entry
   */
  runs(from: number, to: number): Run[]
}

/** Parts that are read ahead where a guest is walked in order: disks serve several at once. */
const AHEAD = 8
/** Maximum runs of a window: as many as a part of a standard L2 table has entries. */
const WINDOW_RUNS = PART / 8

/** A part of the L1 table, read from `offset` of the image. */
interface Part {
  offset: number
  view: DataView
}

/**
 * Reads and checks the header of a qcow2 image, be it only to describe or check the image.
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, IO
 */
export async function loadHeader(file: ImageFile, options?: HeaderOptions): Promise<Qcow2Header> {
  const first = await readFirstCluster(file)
  return inFile(file.path, () => decodeHeader(first, options))
}

/**
 * Reads and checks the header of a qcow2 image whose content is to be read.
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, IO
 */
export async function readHeader(file: ImageFile): Promise<Qcow2Header> {
  const header = await loadHeader(file)
  inFile(file.path, () => {
    requireReadable(header)
    requireActiveTable(header)
  })
  return header
}

/**
 * One qcow2 image without its backing file: maps its own guest bytes, never what its backing file
 * holds. Tables are read as they are asked for, and only the last ones are kept. That suffices
 * because guests are walked in order, and it serves the one legal way in which a table comes again,
 * L1 entries in a row that share an L2 table.
 */
export class Qcow2Image {
  /** Without the extensions, which may be large and which mapping does not need. */
  readonly header: Omit<Qcow2Header, 'extensions'>
  readonly #file: ImageFile
  readonly #bounds: HostBounds
  readonly #l2Coverage: number
  /** Bytes of a part of an L2 table. */
  readonly #partSize: number
  readonly #tables: TableCache
  /** The part of the L1 table that was read last. */
  #l1: Part | undefined
  /** The parts that are likely to be asked for next, on their way, by their offset. */
  #ahead = new Map<number, Promise<TablePart>>()
  /** Where the last window ended. */
  #lastEnd = 0
  readonly #work: TableWork
  readonly #dataWork: DataWork

  /**
   * @param header as `readHeader` gave it
   * @param data the file that data clusters are in: the image itself, or its external data file
   * @throws BackupError BAD_IMAGE if the L1 table lies beyond the end of the file
   */
  constructor(file: ImageFile, header: Qcow2Header, data: ImageFile) {
    const { extensions: _, ...mapping } = header
    this.header = mapping
    this.#file = file
    this.#bounds = new HostBounds(header, file.size, data.size)
    this.#work = new TableWork(file.size, header.extendedL2)
    // Guest data of an external data file lies at its own offset: nothing there is shared.
    this.#dataWork = new DataWork(header.externalDataFile ? Number.POSITIVE_INFINITY : file.size)
    this.#l2Coverage = l2Coverage(header)
    this.#tables = new TableCache(file, header)
    this.#partSize = this.#tables.partSize
    // Unlike the tail of a cluster, the end of this table is always written: QEMU's fresh files end
    // right after it. Reading the missing part as zero would turn a truncated image into an empty
    // disk.
    if (header.l1Size > 0 && header.l1TableOffset + header.l1Size * 8 > file.size) {
      throw badImage(file.path, 'active L1 table reaches past the end of the file')
    }
  }

  /**
   * The window that maps the guest offset `at`, which is below the virtual size.
   * @throws BackupError BAD_IMAGE if its L2 table cannot be where it is said to be
   */
  async window(at: number): Promise<TableWindow> {
    const index = Math.floor(at / this.#l2Coverage)
    const l1 = await this.#l1Part(index)
    const table = hostOffset(l1.view, index * 8 - this.#inL1(l1))
    if (table === 0) return this.#unallocated(index, l1)
    inFile(this.#file.path, () => this.#bounds.requireTable(table, index * this.#l2Coverage))
    return this.#allocated(table, index, at, l1)
  }

  /** The window of an L1 entry without a table, and of those after it that have none either. */
  #unallocated(index: number, l1: Part): TableWindow {
    const first = this.#inL1(l1)
    let next = index + 1
    const last = (first + l1.view.byteLength) / 8
    while (next < last && hostOffset(l1.view, next * 8 - first) === 0) next++
    return {
      start: index * this.#l2Coverage,
      end: Math.min(next * this.#l2Coverage, this.header.virtualSize),
      runs: (from, to) => [{ kind: 'unallocated', start: from, length: to - from }],
    }
  }

  /** The window at `at`, which the L2 table `table` of L1 entry `index` maps. */
  async #allocated(table: number, index: number, at: number, l1: Part): Promise<TableWindow> {
    const { header } = this
    const coverage = (this.#partSize / l2EntrySize(header)) * header.clusterSize
    const first = index * this.#l2Coverage
    const part = Math.floor((at - first) / coverage)
    const offset = table + part * this.#partSize
    const base = first + part * coverage
    if (at < this.#lastEnd) this.#tables.restart()
    const { view, uniform } = await this.#l2Part(offset, index, l1)
    const empty = uniform ? emptyKind(view, header) : undefined
    // All of a disk may share a table of zeroes, which then is one window.
    const whole = empty !== undefined && this.#partSize === header.clusterSize
    const last = whole ? this.#lastOf(table, index, l1) : index
    if (at === this.#lastEnd) this.#readAhead({ table, part, offset }, last, l1)
    if (empty) {
      const end = Math.min(base + (last - index) * this.#l2Coverage + coverage, header.virtualSize)
      this.#lastEnd = end
      const runs = (from: number, to: number): Run[] => [
        { kind: empty, start: from, length: to - from },
      ]
      return { start: base, end, runs }
    }
    const span = (WINDOW_RUNS / (header.extendedL2 ? SUBCLUSTERS : 1)) * header.clusterSize
    const start = base + Math.floor((at - base) / span) * span
    const end = Math.min(start + span, base + coverage, header.virtualSize)
    this.#lastEnd = end
    return {
      start,
      end,
      runs: (from, to) =>
        inFile(this.#file.path, () => {
          const runs = decodeL2(view, header, base, from, to)
          if (!this.#work.allows(to, runs.length - 1)) throw malformed(OVER_AND_OVER)
          for (const run of runs) this.#requireFresh(run)
          return this.#bounds.checked(runs)
        }),
    }
  }

  /** The last of the L1 entries from `index` on that name one table. */
  #lastOf(table: number, index: number, l1: Part): number {
    const first = this.#inL1(l1)
    const end = (first + l1.view.byteLength) / 8
    let last = index
    while (last + 1 < end && hostOffset(l1.view, (last + 1) * 8 - first) === table) last++
    return last
  }

  /** @throws FormatError if a sound image cannot name so much data */
  #requireFresh(run: Run): void {
    const fresh =
      run.kind === 'data'
        ? this.#dataWork.allowsData(run.start, run.length)
        : run.kind !== 'compressed' || this.#dataWork.allowsStream(run.start, run.offset)
    if (!fresh) throw malformed(DATA_OVER_AND_OVER)
  }

  /** Where a part of the L1 table starts, bytes from the start of the table. */
  #inL1(l1: Part): number {
    return l1.offset - this.header.l1TableOffset
  }

  /** The part of the L1 table that holds entry `index`. */
  async #l1Part(index: number): Promise<Part> {
    const at = Math.floor((index * 8) / PART) * PART
    const offset = this.header.l1TableOffset + at
    if (this.#l1?.offset === offset) return this.#l1
    const part = await this.#read(offset, Math.min(PART, this.header.l1Size * 8 - at))
    this.#l1 = part
    return part
  }

  /** The part of an L2 table at `offset`; with it come the tables of the L1 entries after `index`. */
  async #l2Part(offset: number, index: number, l1: Part): Promise<TablePart> {
    const known = this.#tables.get(offset)
    if (known) return known
    const ahead = this.#ahead.get(offset)
    if (ahead) {
      const part = await ahead
      this.#ahead.delete(offset)
      this.#tables.keep(part)
      return part
    }
    this.#ahead.clear()
    return await this.#tables.load([offset, ...this.#tablesAfter(index, l1)])
  }

  /** Starts reading what comes after a part of a table, at `offset`, which L1 entry `index` names. */
  #readAhead(
    { table, part, offset }: { table: number; part: number; offset: number },
    index: number,
    l1: Part,
  ): void {
    // Small tables come several at a time anyway.
    if (this.#partSize < PART) return
    let begun = 0
    for (const next of this.#partsAfter(table, part, index, l1)) {
      if (begun++ === AHEAD) return
      // Entries may all name the table that is in use.
      const known = next === offset || this.#ahead.has(next) || this.#tables.get(next) !== undefined
      if (known || next + PART > this.#file.size) continue
      const read = this.#tables.read(next)
      // It may never be asked for.
      read.catch(() => {})
      this.#ahead.set(next, read)
    }
  }

  *#partsAfter(table: number, part: number, index: number, l1: Part): Generator<number> {
    const { clusterSize } = this.header
    for (let at = (part + 1) * PART; at < clusterSize; at += PART) yield table + at
    const first = this.#inL1(l1)
    const last = (first + l1.view.byteLength) / 8
    for (let entry = index + 1; entry < last; entry++) {
      const next = hostOffset(l1.view, entry * 8 - first)
      // A hole of the guest ends it.
      if (next === 0) return
      for (let at = 0; at < clusterSize; at += PART) yield next + at
    }
  }

  /** Tables likely to be asked for next, as far as they are small enough to be read ahead. */
  #tablesAfter(index: number, l1: Part): number[] {
    const first = this.#inL1(l1)
    const end = Math.min(index + PART / this.header.clusterSize, (first + l1.view.byteLength) / 8)
    const tables: number[] = []
    for (let next = index + 1; next < end; next++) {
      const table = hostOffset(l1.view, next * 8 - first)
      if (table !== 0 && table < this.#file.size) tables.push(table)
    }
    return tables
  }

  async #read(offset: number, length: number): Promise<Part> {
    const bytes = await readAt(this.#file, offset, length)
    return { offset, view: new DataView(bytes.buffer, bytes.byteOffset, length) }
  }
}

/** The one mapping of a table whose entries are all the same, if there is one. */
function emptyKind(view: DataView, { version }: TableLayout): 'zero' | 'unallocated' | undefined {
  const high = view.getUint32(0)
  const low = view.getUint32(4)
  if (high !== 0) return undefined
  if (low === 0) return 'unallocated'
  return low === 1 && version >= 3 ? 'zero' : undefined
}
