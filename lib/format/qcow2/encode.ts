import { encodeText } from '../../text.ts'
import type { Bitmap } from './bitmaps.ts'
import { EXT_BITMAPS, EXT_END, FIELD, SECTOR_SIZE } from './constants.ts'
import type { BitmapsExtension, Qcow2Header, RawExtension } from './header-fields.ts'

/** Header fields that an edit writes; the inverse of decodeHeader. */

/** Bytes of an entry of the bitmap directory before its name. */
const ENTRY_BYTES = 24
const DIRTY_TRACKING = 1
const IN_USE = 1
const AUTO = 2

/** The header's fields `refcountTableOffset` (bytes) and `refcountTableClusters`, which are neighbours. */
export function encodeRefcountTableFields(offset: number, clusters: number): Buffer {
  const fields = Buffer.alloc(12)
  fields.writeBigUInt64BE(BigInt(offset))
  fields.writeUInt32BE(clusters, 8)
  return fields
}

/**
 * Encodes a bitmap directory (spec: "Bitmap directory entry"). An entry that was decoded keeps its
 * bytes but for the place and size of its table and its flags, so that no name is written differently
 * from how it was read.
 */
export function encodeBitmapDirectory(bitmaps: readonly Bitmap[]): Buffer {
  return Buffer.concat(bitmaps.map(encodeEntry))
}

function encodeEntry(bitmap: Bitmap): Buffer {
  const entry = bitmap.raw ? Buffer.from(bitmap.raw) : newEntry(bitmap)
  entry.writeBigUInt64BE(BigInt(bitmap.tableOffset), 0)
  entry.writeUInt32BE(bitmap.tableSize, 8)
  entry.writeUInt32BE((bitmap.inUse ? IN_USE : 0) | (bitmap.auto ? AUTO : 0), 12)
  return entry
}

function newEntry({ name, granularityBits }: Bitmap): Buffer {
  const text = encodeText(name)
  const entry = Buffer.alloc(padded(ENTRY_BYTES + text.length))
  entry[16] = DIRTY_TRACKING
  entry[17] = granularityBits
  entry.writeUInt16BE(text.length, 18)
  text.copy(entry, ENTRY_BYTES)
  return entry
}

/**
 * The type of an extension that means nothing, and that other programs keep as they keep every type
 * that they do not know: space for a bitmaps extension to come, or skipped.
 */
export const EXT_ROOM = 0x71627270
/** Bytes of a bitmaps extension, with its type and length. */
const BITMAPS_BYTES = 32
/** Bytes of an extension's type and length. */
export const EXT_HEAD = 8

/** The bitmaps extension of the first cluster, or `room`: a placeholder without a meaning. */
export type BitmapsPlace = BitmapsExtension | 'room' | undefined

const isOurs = ({ type }: RawExtension) => type === EXT_BITMAPS || type === EXT_ROOM

/**
 * The first cluster of an image with another bitmaps extension, or without one. All other extensions
 * stay, also unknown ones, and so do the header's fields.
 * @param first the first cluster as it is
 * @param header decoded from it
 * @param bitmaps `room`: an extension of the same size that means nothing
 * @param inFront make it the first extension; default: where it is, or else the last
 * @returns as many bytes as `first`; undefined if they are too few
 */
export function withBitmaps(
  first: Buffer,
  header: Qcow2Header,
  bitmaps: BitmapsPlace,
  inFront = false,
): Buffer | undefined {
  const extensions = header.extensions.all.filter((extension) => !isOurs(extension))
  const place = header.extensions.all.findIndex(isOurs)
  if (bitmaps) {
    // Where it was, so that nothing else moves.
    const at = inFront ? 0 : place < 0 ? extensions.length : place
    extensions.splice(at, 0, encodeBitmaps(bitmaps))
  }
  const { headerLength, backingFileOffset, backingFileSize } = header
  const name = first.subarray(backingFileOffset, backingFileOffset + backingFileSize)
  const area = encodeExtensions(extensions)
  const nameAt = headerLength + area.length
  if (nameAt + (backingFileOffset === 0 ? 0 : name.length) > first.length) return undefined
  const cluster = Buffer.alloc(first.length)
  first.copy(cluster, 0, 0, headerLength)
  area.copy(cluster, headerLength)
  if (backingFileOffset !== 0) {
    name.copy(cluster, nameAt)
    cluster.writeBigUInt64BE(BigInt(nameAt), FIELD.backingFileOffset)
  }
  return cluster
}

/**
 * The first cluster with another bitmaps extension where it has one, or space for one, already.
 * @param bitmaps `room`: its extension becomes a placeholder
 * @returns undefined if it has neither
 */
export function withBitmapsInPlace(
  first: Buffer,
  { headerLength, extensions }: Qcow2Header,
  bitmaps: Exclude<BitmapsPlace, undefined>,
): Buffer | undefined {
  let at = headerLength
  let found: { at: number; type: number } | undefined
  for (const { type, data } of extensions.all) {
    // Of several bitmaps extensions the last one counts.
    const better = type === EXT_BITMAPS || (type === EXT_ROOM && found?.type !== EXT_BITMAPS)
    if (better && data.length === BITMAPS_BYTES - EXT_HEAD) found = { at, type }
    at += padded(EXT_HEAD + data.length)
  }
  if (!found) return undefined
  const cluster = Buffer.from(first)
  // Space means nothing, whatever it holds: one write of its type makes it.
  if (bitmaps === 'room') cluster.writeUInt32BE(EXT_ROOM, found.at)
  else encodeRaw(encodeBitmaps(bitmaps)).copy(cluster, found.at)
  return cluster
}

/**
 * The first cluster with a bitmaps extension in its first sector, where all that does not fit into
 * that sector besides is moved to bytes that mean nothing yet. So the other sectors can be written
 * first, and the first one, which is atomic, makes the change.
 * @returns undefined if the two places do not fit
 */
export function withBitmapsInFirstSector(
  first: Buffer,
  header: Qcow2Header,
  bitmaps: Exclude<BitmapsPlace, undefined>,
): Buffer | undefined {
  const { headerLength, backingFileOffset: nameAt, backingFileSize } = header
  const skipAt = headerLength + BITMAPS_BYTES
  if (skipAt + EXT_HEAD > SECTOR_SIZE) return undefined
  const others = header.extensions.all.filter((extension) => !isOurs(extension))
  const area = encodeExtensions(others)
  const used = endOfExtensions(first, header)
  const nameEnd = nameAt + (nameAt === 0 ? 0 : backingFileSize)
  const beforeName = padded(Math.max(used, SECTOR_SIZE))
  const stays = nameAt === 0 || beforeName + area.length <= nameAt
  const to = stays ? beforeName : padded(Math.max(used, SECTOR_SIZE, nameEnd))
  const newNameAt = stays ? nameAt : to + area.length
  if (Math.max(to + area.length, newNameAt + nameEnd - nameAt) > first.length) return undefined
  const cluster = Buffer.from(first)
  encodeRaw(encodeBitmaps(bitmaps)).copy(cluster, headerLength)
  cluster.writeUInt32BE(EXT_ROOM, skipAt)
  cluster.writeUInt32BE(to - skipAt - EXT_HEAD, skipAt + 4)
  cluster.fill(0, skipAt + EXT_HEAD, SECTOR_SIZE)
  area.copy(cluster, to)
  if (!stays) {
    first.copy(cluster, newNameAt, nameAt, nameEnd)
    cluster.writeBigUInt64BE(BigInt(newNameAt), FIELD.backingFileOffset)
  }
  return cluster
}

/** Where the extensions of an image end, with their end marker if there is one; bytes. */
export function endOfExtensions(first: Buffer, header: Qcow2Header): number {
  const { headerLength, backingFileOffset, extensions } = header
  const bytes = extensions.all.reduce((sum, { data }) => sum + padded(EXT_HEAD + data.length), 0)
  return Math.min(headerLength + bytes + EXT_HEAD, backingFileOffset || first.length)
}

function encodeBitmaps(bitmaps: BitmapsExtension | 'room'): RawExtension {
  const data = Buffer.alloc(BITMAPS_BYTES - EXT_HEAD)
  if (bitmaps === 'room') return { type: EXT_ROOM, data }
  const { count, reserved, directorySize, directoryOffset } = bitmaps
  data.writeUInt32BE(count, 0)
  data.writeUInt32BE(reserved, 4)
  data.writeBigUInt64BE(BigInt(directorySize), 8)
  data.writeBigUInt64BE(BigInt(directoryOffset), 16)
  return { type: EXT_BITMAPS, data }
}

/** Extensions in sequence, and the end marker. */
export function encodeExtensions(extensions: readonly RawExtension[]): Buffer {
  const end = { type: EXT_END, data: Buffer.alloc(0) }
  return Buffer.concat([...extensions, end].map(encodeRaw))
}

export function encodeRaw({ type, data }: RawExtension): Buffer {
  const bytes = Buffer.alloc(padded(EXT_HEAD + data.length))
  bytes.writeUInt32BE(type, 0)
  bytes.writeUInt32BE(data.length, 4)
  data.copy(bytes, EXT_HEAD)
  return bytes
}

export function padded(length: number): number {
  return Math.ceil(length / 8) * 8
}
