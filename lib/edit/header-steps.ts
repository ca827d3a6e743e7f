import { BackupError } from '../errors.ts'
import { bitmapsAreCurrent } from '../format/qcow2/bitmaps.ts'
import { BITMAPS, DATA_FILE_RAW, FIELD, SECTOR_SIZE } from '../format/qcow2/constants.ts'
import {
  encodeRefcountTableFields,
  withBitmaps,
  withBitmapsInFirstSector,
  withBitmapsInPlace,
} from '../format/qcow2/encode.ts'
import type { BitmapsExtension } from '../format/qcow2/header-fields.ts'
import type { Write } from '../image/steps.ts'
import type { MovedTable } from './allocator.ts'
import type { EditedImage } from './edited-image.ts'

/** The autoclear features that we know; the others are cleared by whoever writes (spec). */
const KNOWN_AUTOCLEAR = BITMAPS | DATA_FILE_RAW

/** The fields of the header to write. */
interface NewHeader {
  /** Undefined: no bitmaps. */
  extension?: BitmapsExtension
  /** Bytes. */
  virtualSize: number
  /** Where the refcount table is by now, if it was moved. */
  table?: MovedTable
}

/** Clears autoclear features that we do not know, before anything is written (spec). */
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

/** @throws BackupError UNSUPPORTED if the header has no space for the new extension */
export function requireRoom(
  { file, first, header }: EditedImage,
  extension: BitmapsExtension | 'room' | undefined,
): void {
  if (withBitmaps(first, header, extension, true)) return
  const why = 'there is no space for bitmaps in its header: its extensions fill the first cluster'
  throw new BackupError('UNSUPPORTED', file.path, why)
}

/**
 * The steps that change the header. Each is one write within one sector, which is
 * atomic, or is to bytes that mean nothing yet; so that a power failure during any of them leaves the
 * header as it was or as it is to be, and no bitmap out of date. Only where the first cluster has no
 * room for both the old and the new place is it one write of several sectors.
 * REQUIRES: requireRoom
 */
export function headerSteps(image: EditedImage, wanted: NewHeader): Write[][] {
  const { first, header } = image
  const { extension, virtualSize, table } = wanted
  const size = header.virtualSize === virtualSize ? undefined : virtualSize
  const known = header.autoclearFeatures & KNOWN_AUTOCLEAR
  // As it is on the disk now.
  const now = withFields(first, header.autoclearFeatures)
  const layouts = extension ? toHave(extension) : toHaveNone()
  return layouts.map((layout, i) => changed(i === 0 ? now : layouts[i - 1], layout))

  function toHave(bitmaps: BitmapsExtension): Buffer[] {
    const last = (layout: Buffer | undefined) => layout && withFields(layout, known | BITMAPS, size)
    const inPlace = withBitmapsInPlace(first, header, bitmaps)
    for (const layout of [inPlace, laidOut(bitmaps, false), laidOut(bitmaps, true)]) {
      const to = last(layout)
      if (to && inOneSector(now, to)) return [to]
    }
    // While the flag is not set the extension is ignored.
    if (inPlace && !bitmapsAreCurrent(header)) {
      return [withFields(inPlace, known), last(inPlace) as Buffer]
    }
    const moved = last(withBitmapsInFirstSector(first, header, bitmaps))
    if (moved) return [firstSectorOf(now, moved), moved]
    return [last(laidOut(bitmaps, true) ?? laidOut(bitmaps, false)) as Buffer]
  }

  function toHaveNone(): Buffer[] {
    // They end with this; that nothing names them any more comes after.
    const ended = withFields(first, known & ~BITMAPS, size)
    for (const layout of [laidOut(undefined, false), withBitmapsInPlace(first, header, 'room')]) {
      const without = layout && withFields(layout, known & ~BITMAPS, size)
      if (without && inOneSector(ended, without)) return [ended, without]
    }
    return [ended]
  }

  function laidOut(bitmaps: BitmapsExtension | undefined, inFront: boolean): Buffer | undefined {
    return withBitmaps(first, header, bitmaps, inFront)
  }

  function withFields(layout: Buffer, autoclear: bigint, newSize?: number): Buffer {
    const cluster = Buffer.from(layout)
    if (newSize !== undefined) cluster.writeBigUInt64BE(BigInt(newSize), FIELD.size)
    if (table) {
      const fields = encodeRefcountTableFields(table.offset, table.clusters)
      fields.copy(cluster, FIELD.refcountTableOffset)
    }
    cluster.writeBigUInt64BE(autoclear, FIELD.autoclearFeatures)
    return cluster
  }
}

/** A cluster with the first sector of another. */
function firstSectorOf(sector: Buffer, rest: Buffer): Buffer {
  const cluster = Buffer.from(rest)
  sector.copy(cluster, 0, 0, SECTOR_SIZE)
  return cluster
}

/** The bytes that differ, as one write; none if equal. */
export function changed(from: Buffer, to: Buffer): Write[] {
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
