import { type ImageFile, readAt } from '../read.ts'
import { HostBounds } from './bounds.ts'
import { MAX_CLUSTER_SIZE } from './constants.ts'
import { badImage } from './fields.ts'
import { decodeHeader, type Qcow2Header } from './header.ts'
import { decodeL2, l1Offset, l2EntrySize, type Run } from './tables.ts'
import { l2Coverage, requireUnencrypted, validateHeader } from './validate.ts'

/** A stretch of the guest, `start` to `end`, that one part of a table maps. */
export interface TableWindow {
  readonly start: number
  readonly end: number
  /**
   * The runs of the guest bytes `from` to `to`, which lie in the window.
   * @throws BackupError BAD_IMAGE for an entry that cannot be true
   */
  runs(from: number, to: number): Run[]
}

/** Tables are read in parts of this many bytes, which bounds memory whatever an image claims. */
const PART = 64 * 1024
/**
 * The same for extended L2 tables, where an entry of 16 bytes may make 32 runs: 256 entries make
 * as many runs as the 8192 entries of a standard part.
 */
const EXTENDED_PART = 4 * 1024

/** A part of a table, read from `offset` of the image. */
interface Part {
  offset: number
  view: DataView
}
const NO_PART: Part = { offset: -1, view: new DataView(new ArrayBuffer(0)) }

/**
 * Reads and checks the header of a qcow2 image that is to be read.
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, IO
 */
export async function readHeader(file: ImageFile): Promise<Qcow2Header> {
  // The header and all that belongs to it lie in the first cluster, whose size is not yet known.
  const head = await readAt(file, 0, Math.min(file.size, MAX_CLUSTER_SIZE))
  const header = decodeHeader(head, file.path)
  validateHeader(header, file.path)
  requireUnencrypted(header, file.path)
  return header
}

/**
 * One qcow2 image by itself: says where its own guest bytes are, never what its backing file
 * holds. Tables are read as they are asked for; nothing but the part of the L1 table and of the L2
 * table asked for last is kept. That suffices because guests are walked in order, and it serves
 * the one legal way in which a table comes again, L1 entries in a row that share an L2 table.
 */
export class Qcow2Image {
  readonly header: Qcow2Header
  readonly #file: ImageFile
  readonly #bounds: HostBounds
  readonly #l2Coverage: number
  readonly #partSize: number
  #l1 = NO_PART
  #l2 = NO_PART

  /**
   * @param header as `readHeader` gave it
   * @param data the file that data clusters are in: the image itself, or its external data file
   * @throws BackupError BAD_IMAGE if the L1 table lies beyond the end of the file
   */
  constructor(file: ImageFile, header: Qcow2Header, data: ImageFile) {
    this.header = header
    this.#file = file
    this.#bounds = new HostBounds(file.path, header, file.size, data.size)
    this.#l2Coverage = l2Coverage(header)
    this.#partSize = Math.min(header.clusterSize, header.extendedL2 ? EXTENDED_PART : PART)
    // QEMU lets a fresh file end within the last cluster of the L1 table.
    const missing = header.l1TableOffset + header.l1Size * 8 - file.size
    if (header.l1Size > 0 && missing >= header.clusterSize) {
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
    const table = l1Offset(l1.view, index * 8 - this.#inL1(l1))
    if (table === 0) return this.#unallocated(index, l1)
    const guest = index * this.#l2Coverage
    this.#bounds.requireTable(table, guest)
    return this.#allocated(table, guest, at)
  }

  /** The window of an L1 entry without a table, and of those after it that have none either. */
  #unallocated(index: number, l1: Part): TableWindow {
    const first = this.#inL1(l1)
    let next = index + 1
    const last = (first + l1.view.byteLength) / 8
    while (next < last && l1Offset(l1.view, next * 8 - first) === 0) next++
    return {
      start: index * this.#l2Coverage,
      end: Math.min(next * this.#l2Coverage, this.header.virtualSize),
      runs: (from, to) => [{ kind: 'unallocated', start: from, length: to - from }],
    }
  }

  /** The window of the part of an L2 table that maps `at`; `guest` is the first the table maps. */
  async #allocated(table: number, guest: number, at: number): Promise<TableWindow> {
    const { header } = this
    const coverage = (this.#partSize / l2EntrySize(header)) * header.clusterSize
    const part = Math.floor((at - guest) / coverage)
    const { view } = await this.#l2Part(table + part * this.#partSize)
    const start = guest + part * coverage
    return {
      start,
      end: Math.min(start + coverage, header.virtualSize),
      runs: (from, to) =>
        this.#bounds.checked(decodeL2(view, header, start, from, to, this.#file.path)),
    }
  }

  /** Where a part of the L1 table starts, bytes from the start of the table. */
  #inL1(l1: Part): number {
    return l1.offset - this.header.l1TableOffset
  }

  /** The part of the L1 table that holds entry `index`. */
  async #l1Part(index: number): Promise<Part> {
    const at = Math.floor((index * 8) / PART) * PART
    const offset = this.header.l1TableOffset + at
    if (this.#l1.offset === offset) return this.#l1
    const part = await this.#read(offset, Math.min(PART, this.header.l1Size * 8 - at))
    this.#l1 = part
    return part
  }

  async #l2Part(offset: number): Promise<Part> {
    if (this.#l2.offset === offset) return this.#l2
    const part = await this.#read(offset, this.#partSize)
    this.#l2 = part
    return part
  }

  async #read(offset: number, length: number): Promise<Part> {
    const bytes = await readAt(this.#file, offset, length)
    return { offset, view: new DataView(bytes.buffer, bytes.byteOffset, length) }
  }
}
