import { encodeText } from '../../text.ts'
import type { Bitmap } from './bitmaps.ts'
import { EXT_BITMAPS, EXT_END, FIELD, SECTOR_SIZE } from './constants.ts'
import type { BitmapsExtension, RawExtension } from './extensions.ts'
import type { Qcow2Header } from './header.ts'

/** What of an image's header is written by those who edit it; the inverse of decodeHeader. */

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

/** Encodes a bitmap directory (spec: "Bitmap directory entry"). */
export function encodeBitmapDirectory(bitmaps: readonly Bitmap[]): Buffer {
  return Buffer.concat(bitmaps.map(encodeEntry))
}

function encodeEntry({ name, tableOffset, tableSize, granularityBits, ...flags }: Bitmap): Buffer {
  const text = encodeText(name)
  const entry = Buffer.alloc(padded(ENTRY_BYTES + text.length))
  entry.writeBigUInt64BE(BigInt(tableOffset), 0)
  entry.writeUInt32BE(tableSize, 8)
  entry.writeUInt32BE((flags.inUse ? IN_USE : 0) | (flags.auto ? AUTO : 0), 12)
  entry[16] = DIRTY_TRACKING
  entry[17] = granularityBits
  entry.writeUInt16BE(text.length, 18)
  text.copy(entry, ENTRY_BYTES)
  return entry
}

/** An extension that nobody knows, and so keeps: the room of a bitmaps extension to come. */
const EXT_ROOM = 0x71627270
/** Of a bitmaps extension, with its type and length. */
const BITMAPS_BYTES = 32

/**
 * The first cluster of an image with another bitmaps extension, or without one. All other extensions
 * stay, also those that nobody knows, and what is in the header's fields.
 * @param first the first cluster as it is
 * @param header decoded from it
 * @param bitmaps `room`: an extension of the same size that means nothing
 * @param inFront make it the first extension; default: where it is, or else the last
 * @returns as many bytes as `first`; undefined if there is no room in them
 */
export function withBitmaps(
  first: Buffer,
  header: Qcow2Header,
  bitmaps: BitmapsExtension | 'room' | undefined,
  inFront = false,
): Buffer | undefined {
  const isOurs = ({ type }: RawExtension) => type === EXT_BITMAPS || type === EXT_ROOM
  const extensions = header.extensions.all.filter((extension) => !isOurs(extension))
  const place = header.extensions.all.findIndex(isOurs)
  if (bitmaps) {
    // Where it was, so that nothing else moves.
    const at = inFront ? 0 : place < 0 ? extensions.length : place
    extensions.splice(at, 0, encodeExtension(bitmaps))
  }
  const { headerLength, backingFileOffset, backingFileSize } = header
  const name = first.subarray(backingFileOffset, backingFileOffset + backingFileSize)
  const end = { type: EXT_END, data: Buffer.alloc(0) }
  const area = Buffer.concat([...extensions, end].map(encodeRaw))
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

/** Whether a bitmaps extension in front is in the first sector, which is written wholly or not at all. */
export function fitsFirstSector({ headerLength }: Pick<Qcow2Header, 'headerLength'>): boolean {
  return headerLength + BITMAPS_BYTES <= SECTOR_SIZE
}

function encodeExtension(bitmaps: BitmapsExtension | 'room'): RawExtension {
  const data = Buffer.alloc(BITMAPS_BYTES - 8)
  if (bitmaps === 'room') return { type: EXT_ROOM, data }
  const { count, reserved, directorySize, directoryOffset } = bitmaps
  data.writeUInt32BE(count, 0)
  data.writeUInt32BE(reserved, 4)
  data.writeBigUInt64BE(BigInt(directorySize), 8)
  data.writeBigUInt64BE(BigInt(directoryOffset), 16)
  return { type: EXT_BITMAPS, data }
}

function encodeRaw({ type, data }: RawExtension): Buffer {
  const bytes = Buffer.alloc(padded(8 + data.length))
  bytes.writeUInt32BE(type, 0)
  bytes.writeUInt32BE(data.length, 4)
  data.copy(bytes, 8)
  return bytes
}

function padded(length: number): number {
  return Math.ceil(length / 8) * 8
}
