import { hex } from '../../text.ts'
import { malformed } from '../format-error.ts'
import type { Qcow2Header } from './header-fields.ts'
import type { Run } from './tables.ts'

/** Metadata that no guest byte and no L2 table can lie in; bytes `start` to `end` of the image. */
interface MetadataRegion {
  name: string
  start: number
  end: number
}

/**
 * Checks table entries against the file: its end, and the metadata whose place the
 * header gives. A cluster that starts inside the file but ends past it is legal (the last one may
 * be cut short) and reads as zero there.
 */
export class HostBounds {
  readonly #clusterSize: number
  readonly #fileSize: number
  readonly #dataSize: number
  readonly #areas: MetadataRegion[]
  /** Data clusters are in the image itself. */
  readonly #own: boolean

  /**
   * @param fileSize bytes of the image
   * @param dataSize bytes of the file that data clusters are in
   */
  constructor(header: Qcow2Header, fileSize: number, dataSize: number) {
    const { clusterSize, l1TableOffset, refcountTableOffset } = header
    this.#clusterSize = clusterSize
    this.#fileSize = fileSize
    this.#dataSize = dataSize
    this.#own = !header.externalDataFile
    this.#areas = [
      { name: 'header', start: 0, end: clusterSize },
      { name: 'L1 table', start: l1TableOffset, end: l1TableOffset + header.l1Size * 8 },
      {
        name: 'refcount table',
        start: refcountTableOffset,
        end: refcountTableOffset + header.refcountTableClusters * clusterSize,
      },
    ]
  }

  /**
   * @param offset of an L2 table
   * @param guest the first guest offset that it maps
   * @throws FormatError if no table can be there
   */
  requireTable(offset: number, guest: number): void {
    const bad = (why: string) => this.#bad(guest, `L2 table at ${hex(offset)} ${why}`)
    if (offset % this.#clusterSize !== 0) throw bad('is unaligned')
    const end = offset + this.#clusterSize
    if (offset >= this.#fileSize) throw bad('is past the end of the file')
    // Unlike data clusters, tables are always written whole. If the missing part read as zero,
    // a truncated image would show what its backing file holds.
    if (end > this.#fileSize) throw bad('reaches past the end of the file')
    const area = this.#areaIn(offset, end)
    if (area) throw bad(`lies over the ${area.name}`)
  }

  /**
   * Checks runs: data past the end of the file becomes zeroes, and no compressed stream
   * reaches past it.
   * @throws FormatError for a cluster that lies in metadata or past the end of the file
   */
  checked(runs: Run[]): Run[] {
    let short = false
    for (const run of runs) {
      if (run.kind === 'data') {
        this.#requireData(run.start, run.offset, run.offset + run.length)
        short ||= run.offset + run.length > this.#dataSize
      } else if (run.kind === 'compressed') {
        this.#requireStream(run.start, run.offset)
        run.size = Math.min(run.size, this.#fileSize - run.offset)
      }
    }
    return short ? runs.flatMap((run) => this.#cut(run)) : runs
  }

  #requireData(guest: number, offset: number, end: number): void {
    const pastEnd = Math.ceil(this.#dataSize / this.#clusterSize) * this.#clusterSize
    if (end > pastEnd) {
      const first = Math.max(offset, pastEnd)
      const why = `data cluster at ${hex(first)} is past the end of the file`
      throw this.#bad(guest + first - offset, why)
    }
    const area = this.#own && this.#areaIn(offset, end)
    if (area) {
      const first = Math.max(offset, area.start)
      const why = `data cluster at ${hex(first)} lies over the ${area.name}`
      throw this.#bad(guest + first - offset, why)
    }
  }

  /** Only its start is sure to belong to it: its end is rounded up to a sector. */
  #requireStream(guest: number, offset: number): void {
    const bad = (why: string) => this.#bad(guest, `compressed cluster at ${hex(offset)} ${why}`)
    if (offset >= this.#fileSize) throw bad('is past the end of the file')
    const area = this.#areaIn(offset, offset + 1)
    if (area) throw bad(`lies over the ${area.name}`)
  }

  #cut(run: Run): Run[] {
    const stored = run.kind === 'data' ? this.#dataSize - run.offset : run.length
    if (stored >= run.length) return [run]
    const rest: Run = { kind: 'zero', start: run.start + stored, length: run.length - stored }
    // A piece of the last cluster may lie wholly past the end of the file.
    if (stored <= 0) return [{ kind: 'zero', start: run.start, length: run.length }]
    return [{ ...run, length: stored }, rest]
  }

  #areaIn(start: number, end: number): MetadataRegion | undefined {
    return this.#areas.find((area) => start < area.end && end > area.start)
  }

  #bad(guest: number, why: string) {
    return malformed(`guest offset ${hex(guest)}: ${why}`)
  }
}
