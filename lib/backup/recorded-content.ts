import { basename } from 'node:path'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { quoted } from '../text.ts'
import { formatSize } from '../units.ts'
import { type Manifest, manifestPath, recordsOf } from './manifest.ts'

/** Counts of a copy that a manifest records too, bytes. */
export type Counts = Pick<Manifest, 'dataBytes' | 'zeroBytes' | 'unchangedBytes'>

/** Result of comparing an image with its manifest. */
export interface Comparison {
  /** The difference from the record; undefined if there is none. */
  difference?: string
  /** The record compared with; undefined if there is none for this image. */
  record?: Manifest
  notes: string[]
}

/**
 * The record for an image in the manifest beside it. There may be several records, of which one is valid: a
 * run that was replacing the image may have been killed.
 */
export class RecordedContent {
  readonly #path: string
  readonly #records: readonly (Manifest | null)[]
  /** Why each is not of this image, by its metadata; null where nothing is recorded. */
  readonly #faults: readonly (string | undefined | null)[]

  constructor(path: string, manifest: Manifest, header: Qcow2Header) {
    this.#path = path
    this.#records = recordsOf(manifest)
    this.#faults = this.#records.map((record) => record && faultOf(path, record, header))
  }

  /** The difference between the image's metadata and the record, if any. */
  get difference(): string | undefined {
    return this.#faults.every(Boolean) ? (this.#faults[0] as string) : undefined
  }

  /**
   * Compares the image's content with the record.
   * @param counts not known where it was not read cluster by cluster
   */
  compare(checksum: string, counts?: Counts): Comparison {
    const differences = this.#records.map((record, index) =>
      record ? (this.#faults[index] ?? contentFault(record, checksum, counts)) : undefined,
    )
    const matching = this.#records.findIndex((record, i) => record && differences[i] === undefined)
    if (matching >= 0) return { record: this.#records[matching]!, notes: [] }
    if (this.#records.includes(null)) {
      const note = `${this.#path}: has no manifest; ${manifestPath(this.#path)} is of another image`
      return { notes: [note] }
    }
    return { record: this.#records[0]!, difference: differences[0], notes: [] }
  }
}

/** The difference between the image's header and the record, if any. */
function faultOf(path: string, record: Manifest, header: Qcow2Header): string | undefined {
  const { virtualSize, image } = record
  if (header.virtualSize !== virtualSize) {
    return `holds a disk of ${formatSize(header.virtualSize)}, not ${formatSize(virtualSize)}`
  }
  if (image !== undefined && image !== basename(path)) {
    return `its manifest is of an image named ${quoted(image)}`
  }
  if (header.backingFile === record.backingFile) return undefined
  return `${backing(header.backingFile)}, not ${record.backingFile === undefined ? 'none' : quoted(record.backingFile)} as recorded`
}

function backing(name: string | undefined): string {
  return name === undefined ? 'has no backing file' : `has the backing file ${quoted(name)}`
}

/**
 * The difference between what an image holds and what is recorded of it, if any.
 * @param counts not known where it was not read cluster by cluster
 */
export function contentFault(
  { content, ...recorded }: Partial<Counts> & Pick<Manifest, 'content'>,
  checksum: string,
  counts?: Counts,
): string | undefined {
  if (checksum !== content.checksum) {
    return `does not match the data that was read: its checksum is ${checksum}, not ${content.checksum}`
  }
  for (const key of ['dataBytes', 'zeroBytes', 'unchangedBytes'] as const) {
    if (!counts || recorded[key] === undefined || recorded[key] === counts[key]) continue
    return `${key} is ${counts[key]}, not ${recorded[key]} as recorded`
  }
  return undefined
}
