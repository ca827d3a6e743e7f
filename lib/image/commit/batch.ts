import type { Area } from '../../extents/areas.ts'
import { l2EntrySize } from '../../format/qcow2/tables.ts'
import { readAt } from '../../format/read.ts'
import { type Layer, readLayers } from '../../source/layer.ts'
import type { Piece } from '../../source/source.ts'
import { Allocator } from '../edit/allocator.ts'
import { REFCOUNT_TABLE_FIELD, tableField } from '../edit/header.ts'
import type { EditedImage } from '../edit/image.ts'
import { type Lost, lose, release } from '../edit/release.ts'
import { type ImageDisk, runSteps, type Write } from '../edit/steps.ts'
import { type Change, covers, isZero } from './changes.ts'
import { readEntry, writeData, writeUnallocated, writeZero } from './entries.ts'
import type { L1Table } from './l1.ts'

/** What a batch writes to. */
export interface CommitDisk extends ImageDisk {
  /** Writes pieces, ordered by where in the image they go. All that was written is durable then. */
  copy(pieces: readonly Piece[], end: number): Promise<void>
  /** Lets the file system have the room of areas that nothing refers to. */
  giveBack(areas: readonly Area[]): Promise<void>
}

/** A base while data is committed to it. */
export interface CommitBase {
  image: EditedImage
  l1: L1Table
  disk: CommitDisk
  /** What the base and those below it hold, as it was before this batch. */
  layers: readonly Layer[]
  /** Guest bytes from which on nothing below the base is seen, so that what it lacks is zero. */
  below: number
  /** Of the disk when all is committed, bytes. */
  size: number
  /** Offset below which no free cluster is to be looked for, bytes. */
  from: number
}

/** An L2 table that is being changed. */
interface Table {
  offset: number
  view: DataView
  bytes: Buffer
  /** Nothing refers to it yet. */
  fresh: boolean
}

/** Bounds of a batch: what it holds in memory, and how much has to be done again after a crash. */
const MOST_DATA = 512 * 2 ** 20
const MOST_PIECES = 65536
const MOST_TABLES = 32 * 2 ** 20
const MOST_LOST = 2 ** 18
/** References of one table of zeroes: what 16 bits hold, as usual. */
const MOST_SHARED = 65535
/** Free room of at least so many bytes is given back to the file system. */
const LEAST_ROOM = 2 ** 20

/**
 * Changes of a base that become visible together. Data goes into clusters that are not in use, or
 * into those of the base that the images above hide; what refers to it is written when it is
 * durable; and what is not referred to any more is free last. So the base is sound whenever this
 * ends, and what the guest sees through the images above is the same all the time.
 */
export class Batch {
  readonly #base: CommitBase
  readonly #allocator: Allocator
  readonly #tables = new Map<number, Table>()
  readonly #pieces: Piece[] = []
  readonly #lost: Lost = new Map()
  readonly #entrySize: number
  /** Guest bytes that one L2 table maps. */
  readonly #coverage: number
  /** A table of zeroes, and the L1 entries that name it. */
  #zeroes: { offset: number; users: number[] } | undefined
  /** A table that has nothing but zeroes. */
  #knownZero = 0
  #fresh: Write[] = []
  #data = 0
  #end = 0

  constructor(base: CommitBase) {
    const { file, header, stored } = base.image
    this.#base = base
    this.#allocator = new Allocator(file, header, stored, base.from)
    this.#entrySize = l2EntrySize(header)
    this.#coverage = (header.clusterSize / this.#entrySize) * header.clusterSize
  }

  get isFull(): boolean {
    const { clusterSize } = this.#base.image.header
    return (
      this.#data >= MOST_DATA ||
      this.#pieces.length >= MOST_PIECES ||
      this.#tables.size * clusterSize >= MOST_TABLES ||
      this.#lost.size >= MOST_LOST
    )
  }

  /** Where to look for free clusters after this batch, bytes. */
  get from(): number {
    return this.#allocator.from
  }

  /**
   * Takes a change, or of a large one its beginning.
   * @returns what is left of it
   */
  async add(change: Change): Promise<Change | undefined> {
    if (change.kind === 'cluster') {
      await this.#fill(change.start, change.pieces)
      return undefined
    }
    let { start, length } = change
    while (length > 0) {
      if (this.isFull) return { kind: 'zero', start, length }
      const first = start - (start % this.#coverage)
      const end = Math.min(start + length, first + this.#coverage)
      const whole = start === first && end >= Math.min(first + this.#coverage, this.#base.size)
      if (whole) await this.#zeroTable(first / this.#coverage)
      else await this.#zeroEntries(start, end)
      length -= end - start
      start = end
    }
    return undefined
  }

  /** Lets a cluster hold pieces. */
  async #fill(start: number, pieces: readonly Piece[]): Promise<void> {
    const { image, size } = this.#base
    const { header } = image
    const { clusterSize } = header
    const end = Math.min(start + clusterSize, size)
    const index = Math.floor(start / this.#coverage)
    const at = this.#entryAt(start)
    // Not for what changes nothing.
    if (pieces.every(isZero) && (await this.#readsZero(start))) return
    const table = await this.#table(index)
    const entry = readEntry(table.view, at, header)
    if (entry.kind === 'data' && entry.copied) {
      for (const piece of pieces) this.#write(piece, start, entry.host)
      return
    }
    // Behind what reads as zero or is not there, the host cluster shows nothing.
    const reused = entry.size > 0 && entry.copied && /zero|unallocated/.test(entry.kind)
    const host = reused ? entry.host : await this.#allocator.allocate(1)
    const content = covers(pieces, start, end) ? pieces : await this.#filledUp(start, end, pieces)
    for (const piece of content) this.#write(piece, start, host)
    if (end < start + clusterSize) {
      this.#write({ kind: 'zero', start: end, length: start + clusterSize - end }, start, host)
    }
    if (!reused && entry.size > 0) lose(this.#lost, entry.host, entry.size, clusterSize)
    writeData(table.view, at, host, header.extendedL2)
  }

  /** Pieces, and between them what the base and those below it have. */
  async #filledUp(start: number, end: number, pieces: readonly Piece[]): Promise<Piece[]> {
    const all: Piece[] = []
    let at = start
    for (const piece of [...pieces, undefined]) {
      const length = (piece?.start ?? end) - at
      for await (const batch of readLayers(this.#base.layers, { start: at, length })) {
        all.push(...batch)
      }
      if (!piece) break
      all.push(piece)
      at = piece.start + piece.length
    }
    return all
  }

  /** @param host where the cluster from `start` is */
  #write(piece: Piece, start: number, host: number): void {
    const moved = { ...piece, start: host + piece.start - start }
    this.#pieces.push(moved)
    this.#data += piece.length
    this.#end = Math.max(this.#end, moved.start + moved.length)
  }

  async #readsZero(start: number): Promise<boolean> {
    const entry = this.#base.l1.offset(Math.floor(start / this.#coverage))
    if (entry === 0 && !this.#tables.has(Math.floor(start / this.#coverage))) {
      return start >= this.#base.below
    }
    const { view } = await this.#table(Math.floor(start / this.#coverage))
    const { kind } = readEntry(view, this.#entryAt(start), this.#base.image.header)
    return kind === 'zero' || (kind === 'unallocated' && start >= this.#base.below)
  }

  /** Lets the clusters from `start` to `end`, which one table maps, read as zero. */
  async #zeroEntries(start: number, end: number): Promise<void> {
    const { image, below } = this.#base
    const { clusterSize, extendedL2, version } = image.header
    for (let at = start; at < end; at += clusterSize) {
      if (await this.#readsZero(at)) continue
      if (at < below && version < 3) {
        // There is no flag for it.
        await this.#fillZero(at)
        continue
      }
      const { view } = await this.#table(Math.floor(start / this.#coverage))
      const place = this.#entryAt(at)
      const { host, size } = readEntry(view, place, image.header)
      if (size > 0) lose(this.#lost, host, size, clusterSize)
      if (at < below) writeZero(view, place, extendedL2)
      else writeUnallocated(view, place, extendedL2)
    }
  }

  async #fillZero(start: number): Promise<void> {
    const { image, size } = this.#base
    const length = Math.min(image.header.clusterSize, size - start)
    await this.#fill(start, [{ kind: 'zero', start, length }])
  }

  /** Lets all that an L1 entry maps read as zero. */
  async #zeroTable(index: number): Promise<void> {
    const { image, l1, below } = this.#base
    const start = index * this.#coverage
    const offset = l1.offset(index)
    if (start >= below) {
      if (offset === 0) return
      await this.#dropTable(index)
      l1.set(index, 0, false)
      return
    }
    const { version, refcountOrder } = image.header
    const end = Math.min(start + this.#coverage, this.#base.size)
    if (version < 3) return await this.#zeroEntries(start, end)
    if (offset !== 0 && (await this.#isAllZero(index))) return
    const most = Math.min(2 ** (2 ** refcountOrder) - 1, MOST_SHARED)
    if (!this.#zeroes || this.#zeroes.users.length === most) {
      this.#endZeroes()
      this.#zeroes = { offset: await this.#newTableOfZeroes(), users: [] }
    }
    if (offset !== 0) await this.#dropTable(index)
    this.#zeroes.users.push(index)
    l1.set(index, this.#zeroes.offset, false)
  }

  async #newTableOfZeroes(): Promise<number> {
    const { clusterSize, extendedL2 } = this.#base.image.header
    const bytes = Buffer.alloc(clusterSize)
    const view = viewOf(bytes)
    for (let at = 0; at < clusterSize; at += this.#entrySize) writeZero(view, at, extendedL2)
    const offset = await this.#allocator.allocate(1)
    this.#fresh.push({ offset, bytes })
    return offset
  }

  /** What names the table of zeroes is known. */
  #endZeroes(): void {
    if (!this.#zeroes) return
    const { offset, users } = this.#zeroes
    this.#allocator.setReferences(offset, users.length)
    if (users.length === 1) this.#base.l1.set(users[0], offset, true)
    this.#zeroes = undefined
  }

  /** Whether all entries of an L1 entry's table are zero already. */
  async #isAllZero(index: number): Promise<boolean> {
    const { header, file } = this.#base.image
    if (this.#tables.has(index)) return false
    const offset = this.#base.l1.offset(index)
    // Many may name one table.
    if (offset === this.#knownZero) return true
    const view = viewOf(await readAt(file, offset, header.clusterSize))
    for (let at = 0; at < header.clusterSize; at += this.#entrySize) {
      const { kind, size } = readEntry(view, at, header)
      if (kind !== 'zero' || size > 0) return false
    }
    this.#knownZero = offset
    return true
  }

  /** The table of an L1 entry is not used by it any more, nor is what it names. */
  async #dropTable(index: number): Promise<void> {
    const { header, file } = this.#base.image
    const { clusterSize } = header
    const offset = this.#base.l1.offset(index)
    const known = this.#tables.get(index)
    const view = known?.view ?? viewOf(await readAt(file, offset, clusterSize))
    for (let at = 0; at < clusterSize; at += this.#entrySize) {
      const { host, size } = readEntry(view, at, header)
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
    const { l1, image } = this.#base
    const offset = l1.offset(index)
    lose(this.#lost, offset, image.header.clusterSize, image.header.clusterSize)
    const left = l1.leave(index)
    if (left === undefined) return
    // Of a table that is used once the entry must say so: the last user gets one of its own.
    const { stored } = image
    const cluster = offset / image.header.clusterSize
    if (stored.get(cluster) === undefined) await stored.load(cluster)
    const references = Number(stored.get(cluster)) - (this.#lost.get(cluster) ?? 0)
    if (references === 1) await this.#table(left)
  }

  /** The table of an L1 entry, to be changed. */
  async #table(index: number): Promise<Table> {
    const known = this.#tables.get(index)
    if (known) return known
    const { image, l1 } = this.#base
    const { clusterSize } = image.header
    const offset = l1.offset(index)
    const bytes =
      offset === 0 ? Buffer.alloc(clusterSize) : await readAt(image.file, offset, clusterSize)
    let table: Table
    if (offset !== 0 && l1.copied(index)) {
      table = { offset, bytes, view: viewOf(bytes), fresh: false }
      this.#tables.set(index, table)
    } else {
      const own = await this.#allocator.allocate(1)
      table = { offset: own, bytes, view: viewOf(bytes), fresh: true }
      this.#tables.set(index, table)
      if (offset !== 0) await this.#leave(index)
      l1.set(index, own, true)
    }
    return table
  }

  #entryAt(start: number): number {
    const { clusterSize } = this.#base.image.header
    return Math.floor((start % this.#coverage) / clusterSize) * this.#entrySize
  }

  /** Writes all, each step durable before the next. */
  async write(): Promise<void> {
    this.#endZeroes()
    const { image, disk, l1 } = this.#base
    const { file, stored } = image
    const { refcountTableOffset, refcountTableClusters, clusterSize } = image.header
    const { fresh, entries, table, blocks } = await this.#allocator.finish()
    const tables = [...this.#tables.values()]
    const changed = ({ offset, bytes }: Table): Write => ({ offset, bytes })
    // Nothing refers to any of it yet, or the images above hide it.
    for (const write of [
      ...fresh,
      ...this.#fresh,
      ...tables.filter((one) => one.fresh).map(changed),
    ]) {
      await disk.write(write)
    }
    await disk.copy(sorted(this.#pieces), this.#end)
    await runSteps(disk, [
      table ? [{ offset: REFCOUNT_TABLE_FIELD, bytes: tableField(table) }] : entries,
      blocks,
      [...tables.filter((one) => !one.fresh).map(changed), ...l1.changes()],
    ])
    if (table)
      lose(this.#lost, refcountTableOffset, refcountTableClusters * clusterSize, clusterSize)
    const { blocks: released, free } = await release(stored, this.#lost, file.path)
    await runSteps(disk, [released])
    await disk.giveBack(roomOf(free, clusterSize))
  }
}

function viewOf(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}

/** By their place in the image; what continues each other is one. */
function sorted(pieces: Piece[]): Piece[] {
  pieces.sort((a, b) => a.start - b.start)
  const joined: Piece[] = []
  for (const piece of pieces) {
    const last = joined.at(-1)
    if (last && continues(last, piece)) last.length += piece.length
    else joined.push(piece)
  }
  return joined
}

function continues(last: Piece, next: Piece): boolean {
  if (last.start + last.length !== next.start) return false
  if (isZero(last)) return isZero(next)
  if (last.kind !== 'data' || next.kind !== 'data') return false
  return last.file === next.file && last.offset + last.length === next.offset
}

/** Large stretches of clusters that are free. */
function roomOf(free: readonly number[], clusterSize: number): Area[] {
  const room: Area[] = []
  for (const cluster of free) {
    const start = cluster * clusterSize
    const last = room.at(-1)
    if (last && last.start + last.length === start) last.length += clusterSize
    else room.push({ start, length: clusterSize })
  }
  return room.filter(({ length }) => length >= LEAST_ROOM)
}
