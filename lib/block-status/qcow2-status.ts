import { SUBCLUSTERS } from '../format/qcow2/constants.ts'
import { compressedRange, hostOffset, l2EntrySize } from '../format/qcow2/entries.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { alternate } from '../format/qcow2/refcount-table.ts'
import { l2Coverage } from '../format/qcow2/validate.ts'
import { OVER_AND_OVER, TableWork } from '../format/qcow2/work.ts'
import { roundUp } from '../units.ts'
import {
  contiguousSubclusters,
  hasHost,
  type SubclusterType,
  subclusterType,
} from './entry-status.ts'
import { HostNode } from './host.ts'
import type { BlockNode } from './node.ts'
import { looksPreallocated } from './preallocation.ts'
import {
  type Answer,
  COMPRESSED,
  DATA,
  type HostFile,
  OFFSET_VALID,
  RECURSE,
  type Status,
  StatusError,
  type Stream,
  ZERO,
} from './status.ts'
import { MappingTables } from './tables.ts'

/** Maximum bytes that QEMU asks a qcow2 image for at once. */
const MOST = 2 ** 31 - 1

/** An image and its files, as a `Qcow2Node` needs them. */
export interface Qcow2Parts {
  file: HostFile
  /** Checked as QEMU does on open. */
  header: Qcow2Header
  /** The file that data clusters are in: the image itself, or its external data file. */
  data: HostFile
  /** The image's backing file. */
  backing?: BlockNode
  /**
   * Answers are as long as QEMU's, which matters where not only their sum counts. Default: as
   * long as they can be.
   */
  capped?: boolean
  /** Called with corruption that does not prevent an answer. */
  onCorrupt: (message: string) => void
}

/** Position of an L2 entry. */
interface Place {
  /** A part of the table. */
  table: DataView
  /** Host offset of the table. */
  offset: number
  /** Its index in the part. */
  entry: number
  /** Entries of the table before the part. */
  before: number
  /** Guest offset of the cluster. */
  cluster: number
}

/** A qcow2 image as QEMU's block layer sees it (`qcow2_co_block_status`). */
export class Qcow2Node implements BlockNode {
  readonly size: number
  readonly overlay = true
  readonly backing: BlockNode | undefined
  readonly host: HostNode
  readonly stores: readonly HostFile[]
  readonly #parts: Qcow2Parts
  readonly #tables: MappingTables
  /** Entries of a slice. */
  readonly #slice: number
  readonly #work: TableWork
  #told = false
  /** Guest bytes, from one offset to another, that are known to be left to the backing file. */
  readonly #unallocated = { from: 0, to: 0 }
  /** Where the last question was. */
  #last = 0
  /** Whether clusters may be holes of the file; undefined: not yet known. */
  #preallocated: boolean | undefined

  constructor(parts: Qcow2Parts) {
    this.size = parts.header.virtualSize
    this.backing = parts.backing
    this.host = new HostNode(parts.data)
    // Compressed clusters lie in the image itself; nothing is compressed beside a data file.
    this.stores = [parts.data]
    this.#parts = parts
    this.#tables = new MappingTables(parts.file, parts.header)
    this.#slice = sliceSize(parts.header) / l2EntrySize(parts.header)
    this.#work = new TableWork(parts.file.size, parts.header.extendedL2)
  }

  ask(at: number, bytes: number): Answer {
    // In a long chain most images have none of the range, and are asked for all of it.
    const { from, to } = this.#unallocated
    if (at >= from && at < to) return { flags: 0, length: Math.min(bytes, to - at), offset: 0 }
    if (this.#preallocated === undefined) return this.#lookForPreallocation()
    if (at < this.#last) this.#tables.restart()
    this.#last = at
    const { header } = this.#parts
    const { clusterSize } = header
    const coverage = l2Coverage(header)
    const index = Math.floor(at / coverage)
    const offset = this.#tables.l1(index)
    if (typeof offset !== 'number') return offset

    // Lengths from here on count from the start of the cluster.
    const within = at % clusterSize
    const cluster = at - within
    const most = this.#parts.capped ? Math.min(bytes, MOST) : bytes
    if (offset === 0) return this.#noTable(at, index, most)
    if (offset % clusterSize !== 0) {
      const place = `${alternate(offset)} unaligned (L1 index: ${alternate(index)})`
      throw this.#corrupt(`L2 table offset ${place}`)
    }
    const { partSize } = this.#tables
    const perPart = (partSize / l2EntrySize(header)) * clusterSize
    const part = Math.floor((cluster % coverage) / perPart)
    const found = this.#tables.l2(offset + part * partSize, index)
    if (found instanceof Promise) return found
    const entry = (cluster % perPart) / clusterSize
    const before = (part * perPart) / clusterSize
    const perAnswer = this.#parts.capped ? Math.min(perPart, this.#slice * clusterSize) : perPart
    const wanted = Math.min(most + within, perAnswer - (cluster % perAnswer))
    if (found.uniform && !this.#parts.capped && isLeftToBacking(found.view)) {
      const from = cluster - (cluster % perPart)
      Object.assign(this.#unallocated, { from, to: Math.min(from + perPart, this.size) })
    }
    return this.#inTable(
      { table: found.view, offset, entry, before, cluster },
      within,
      wanted,
      found.uniform,
    )
  }

  /** The status at `at`, for which the L1 table has no L2 table in its entry `index`. */
  #noTable(at: number, index: number, most: number): Status {
    const coverage = l2Coverage(this.#parts.header)
    const entries = this.#parts.capped ? 1 : this.#tables.emptyFrom(index)
    const to = Math.min((index + entries) * coverage, this.size)
    if (!this.#parts.capped) Object.assign(this.#unallocated, { from: index * coverage, to })
    return { flags: 0, length: Math.min(most, to - at), offset: 0 }
  }

  async #lookForPreallocation(): Promise<void> {
    const { file, header } = this.#parts
    this.#preallocated = await looksPreallocated(file, header).catch((error) => {
      if (!(error instanceof StatusError)) throw error
      // QEMU goes on as if it did not look so.
      this.#parts.onCorrupt(error.message)
      this.#told = true
      return false
    })
  }

  /** The status of at most `wanted` bytes of clusters, without the first `within`. */
  #inTable(place: Place, within: number, wanted: number, uniform: boolean): Status {
    const { header } = this.#parts
    const { clusterSize } = header
    const { table, entry, cluster } = place
    const perCluster = header.extendedL2 ? SUBCLUSTERS : 1
    const subclusterSize = clusterSize / perCluster
    const first = Math.floor(within / subclusterSize)
    const at = entry * l2EntrySize(header)
    const type = subclusterType(table, at, first, header)
    const host = this.#hostOf(place, at, type)
    const entries = Math.ceil(wanted / clusterSize)
    const same =
      uniform && (type === 'zero' || type === 'unallocated')
        ? { subclusters: entries }
        : contiguousSubclusters(table, entry, first, entries, header)
    if ('invalid' in same) {
      const index = (place.before + same.invalid) % this.#slice
      throw this.#corrupt(`Invalid cluster entry found  (${where(place.offset, index)})`)
    }
    const known = (first + same.subclusters) * subclusterSize
    if (known < wanted && !this.#work.allows(cluster + known, 1)) {
      throw this.#corrupt(OVER_AND_OVER)
    }
    const length = Math.min(known, wanted) - within
    return this.#status(type, length, host + within, table, at, within)
  }

  /**
   * The host offset of the cluster of a type, if it has one.
   * @throws StatusError for an entry that QEMU takes for corrupt
   */
  #hostOf(
    { table, offset, entry, before, cluster }: Place,
    at: number,
    type: SubclusterType,
  ): number {
    const { header } = this.#parts
    const index = (before + entry) % this.#slice
    const place = where(offset, index)
    if (header.version < 3 && (type === 'zero' || type === 'zero+host')) {
      throw this.#corrupt(`Zero cluster entry found in pre-v3 image (${place})`)
    }
    if (type === 'compressed' && header.externalDataFile) {
      throw this.#corrupt(
        `Compressed cluster entry found in image with external data file (${place})`,
      )
    }
    if (!hasHost(type)) return 0
    const host = hostOffset(table, at)
    if (host % header.clusterSize !== 0) {
      throw this.#corrupt(`Cluster allocation offset ${alternate(host)} unaligned (${place})`)
    }
    if (header.externalDataFile && host !== cluster) {
      throw this.#corrupt(
        `External data file host cluster offset ${alternate(host)} does not match guest cluster ` +
          `offset: ${alternate(cluster)}, L2 index: ${alternate(index)})`,
      )
    }
    return host
  }

  #status(
    type: SubclusterType,
    length: number,
    offset: number,
    table: DataView,
    at: number,
    within: number,
  ): Status {
    const { file, data, header } = this.#parts
    if (type === 'compressed') {
      const { clusterBits, clusterSize } = header
      const method = header.compressionType === 0 ? 'deflate' : 'zstd'
      const range = compressedRange(table, at, clusterBits)
      const stream: Stream = { method, ...range, clusterSize, within }
      return { flags: DATA | COMPRESSED, length, file, offset: 0, stream }
    }
    if (type === 'zero' || type === 'unallocated') {
      return { flags: type === 'zero' ? ZERO : 0, length, offset: 0 }
    }
    let flags = OFFSET_VALID
    if (type === 'zero+host') flags |= ZERO
    if (type === 'data') flags |= this.#preallocated ? DATA | RECURSE : DATA
    return { flags, length, file: data, offset }
  }

  #corrupt(message: string): StatusError {
    return new StatusError(message, this.#told)
  }
}

/** Whether a part of a table whose entries are all the same has none. */
function isLeftToBacking(part: DataView): boolean {
  return part.getUint32(0) === 0 && part.getUint32(4) === 0
}

/** Bytes of L2 tables that QEMU keeps. */
const QEMU_CACHE = 32 * 2 ** 20

/**
 * Bytes of an L2 table that QEMU reads and decodes together, a slice: the table, where its cache holds
 * all tables of the disk.
 */
function sliceSize(header: Qcow2Header): number {
  const { virtualSize, clusterSize } = header
  const entries = Math.ceil(virtualSize / clusterSize)
  const tables = roundUp(entries * l2EntrySize(header), clusterSize)
  return tables > QEMU_CACHE ? Math.min(clusterSize, 4096) : clusterSize
}

/** Position of an L2 entry as QEMU reports it: in its slice. */
function where(table: number, index: number): string {
  return `L2 offset: ${alternate(table)}, L2 index: ${alternate(index)}`
}
