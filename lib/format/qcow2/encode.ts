import type { Bitmap } from './bitmaps.ts'
import { EXT_BITMAPS, EXT_END } from './constants.ts'
import type { BitmapsExtension, RawExtension } from './extensions.ts'
import type { Qcow2Header } from './header.ts'

/** What of an image's header is written by those who edit it; the inverse of decodeHeader. */

/** Bytes of an entry of the bitmap directory before its name. */
const ENTRY_BYTES = 24
const DIRTY_TRACKING = 1
const IN_USE = 1
const AUTO = 2

/** Encodes a bitmap directory (spec: "Bitmap directory entry"). */
export function encodeBitmapDirectory(bitmaps: readonly Bitmap[]): Buffer {
  return Buffer.concat(bitmaps.map(encodeEntry))
}

function encodeEntry({ name, tableOffset, tableSize, granularityBits, ...flags }: Bitmap): Buffer {
  const text = Buffer.from(name)
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

/**
 * The first cluster of an image with another bitmaps extension, or without one. All other extensions
 * stay, also those that nobody knows, and what is in the header's fields.
 * @param first the first cluster as it is
 * @param header decoded from it
 * @returns as many bytes as `first`; undefined if there is no room in them
 */
export function withBitmaps(
  first: Buffer,
  header: Qcow2Header,
  bitmaps: BitmapsExtension | undefined,
): Buffer | undefined {
  const extensions = header.extensions.all.filter(({ type }) => type !== EXT_BITMAPS)
  const place = header.extensions.all.findIndex(({ type }) => type === EXT_BITMAPS)
  if (bitmaps) {
    // Where it was, so that nothing else moves.
    const at = place < 0 ? extensions.length : place
    extensions.splice(at, 0, { type: EXT_BITMAPS, data: encodeExtension(bitmaps) })
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
    cluster.writeBigUInt64BE(BigInt(nameAt), 8)
  }
  return cluster
}

function encodeExtension({
  count,
  reserved,
  directorySize,
  directoryOffset,
}: BitmapsExtension): Buffer {
  const data = Buffer.alloc(24)
  data.writeUInt32BE(count, 0)
  data.writeUInt32BE(reserved, 4)
  data.writeBigUInt64BE(BigInt(directorySize), 8)
  data.writeBigUInt64BE(BigInt(directoryOffset), 16)
  return data
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
