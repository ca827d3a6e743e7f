import { BackupError } from '../errors.ts'
import { bitmapsAreCurrent } from '../format/qcow2/bitmaps.ts'
import { BITMAPS, DATA_FILE_RAW, FIELD, SECTOR_SIZE } from '../format/qcow2/constants.ts'
import { encodeRefcountTableFields, fitsFirstSector, withBitmaps } from '../format/qcow2/encode.ts'
import type { BitmapsExtension } from '../format/qcow2/extensions.ts'
import type { MovedTable } from './allocator.ts'
import type { EditedImage } from './edited-image.ts'
import type { Write } from './steps.ts'

/** The autoclear features that we know; the others are cleared by whoever writes (spec). */
const KNOWN_AUTOCLEAR = BITMAPS | DATA_FILE_RAW

/** What the header is to say. */
interface Wanted {
  /** Undefined: no bitmaps. */
  extension?: BitmapsExtension
  /** Bytes. */
  virtualSize: number
  /** Where the refcount table is by now, if it was moved. */
  table?: MovedTable
}

/** Forgets what others said with features that we do not know, before anything is written (spec). */
export function foreignFeatures({ header }: EditedImage): Write[] {
  const { version, autoclearFeatures } = header
  if (version < 3 || (autoclearFeatures & ~KNOWN_AUTOCLEAR) === 0n) return []
  return [{ offset: FIELD.autoclearFeatures, bytes: number64(autoclearFeatures & KNOWN_AUTOCLEAR) }]
}

/** The virtual size of an image, bytes, of whose bitmaps none depends on it. */
export function sizeField(size: number): Write {
  return { offset: FIELD.size, bytes: number64(BigInt(size)) }
}

function number64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(value)
  return bytes
}

/** @throws BackupError UNSUPPORTED if the header has no room for what it is to name */
export function requireRoom(
  { file, first, header }: EditedImage,
  extension: BitmapsExtension | 'room' | undefined,
): void {
  if (withBitmaps(first, header, extension, true)) return
  const why = 'there is no room for bitmaps in its header: its extensions fill the first cluster'
  throw new BackupError('UNSUPPORTED', file.path, why)
}

/**
 * How the header comes to say something else: from one step to the next it means what it meant, but
 * for one, which is a write of one sector. Where the extension and what changes with it lie in
 * several, the extension is moved to the first one before. No bitmap is ever out of date between.
 * REQUIRES: requireRoom
 */
export function headerSteps(image: EditedImage, wanted: Wanted): Write[][] {
  const { first, header } = image
  const { extension, virtualSize } = wanted
  const size = header.virtualSize === virtualSize ? undefined : virtualSize
  const known = header.autoclearFeatures & KNOWN_AUTOCLEAR
  const without = known & ~BITMAPS
  // What was said by those who know more features is from now on said by us.
  const layouts = [filledIn(first, header.autoclearFeatures), filledIn(first, known)]
  if (!extension) {
    // They end with this; that nothing names them any more comes after.
    layouts.push(filledIn(first, without, size), filledIn(laidOut(undefined), without, size))
  } else {
    const last = filledIn(laidOut(extension), known | BITMAPS, size)
    if (!inOneSector(layouts[1], last) && fitsFirstSector(header)) {
      const old = bitmapsAreCurrent(header) ? header.extensions.bitmaps : undefined
      layouts.push(filledIn(laidOut(old ?? 'room', true), known))
      layouts.push(filledIn(laidOut(extension, true), known | BITMAPS, size))
    } else {
      layouts.push(last)
    }
  }
  return layouts.slice(1).map((layout, i) => changed(layouts[i], layout))

  function laidOut(bitmaps: BitmapsExtension | 'room' | undefined, inFront = false): Buffer {
    return withBitmaps(first, header, bitmaps, inFront) as Buffer
  }

  function filledIn(layout: Buffer, autoclear: bigint, newSize?: number): Buffer {
    const cluster = Buffer.from(layout)
    if (newSize !== undefined) cluster.writeBigUInt64BE(BigInt(newSize), FIELD.size)
    const { table } = wanted
    if (table) {
      const fields = encodeRefcountTableFields(table.offset, table.clusters)
      fields.copy(cluster, FIELD.refcountTableOffset)
    }
    cluster.writeBigUInt64BE(autoclear, FIELD.autoclearFeatures)
    return cluster
  }
}

/** What differs, as one write; none if nothing does. */
function changed(from: Buffer, to: Buffer): Write[] {
  const span = spanOf(from, to)
  return span ? [{ offset: span[0], bytes: Buffer.from(to.subarray(span[0], span[1])) }] : []
}

function inOneSector(from: Buffer, to: Buffer): boolean {
  const span = spanOf(from, to)
  return !span || Math.floor(span[0] / SECTOR_SIZE) === Math.floor((span[1] - 1) / SECTOR_SIZE)
}

/** From where to where two buffers of one length differ. */
function spanOf(a: Buffer, b: Buffer): [number, number] | undefined {
  if (a.equals(b)) return undefined
  let start = 0
  while (a[start] === b[start]) start++
  let end = a.length
  while (a[end - 1] === b[end - 1]) end--
  return [start, end]
}
