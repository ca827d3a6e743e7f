import { type ImageFile, readAt } from '../read.ts'
import {
  BITMAPS,
  MAX_BITMAP_BYTES,
  MAX_BITMAP_NAME,
  MAX_GRANULARITY_BITS,
  MIN_GRANULARITY_BITS,
} from './constants.ts'
import type { BitmapsExtension } from './extensions.ts'
import { badImage, quoted, u64, unsupported } from './fields.ts'
import type { Qcow2Header } from './header.ts'

/** An entry of the bitmap directory (spec: "Bitmap directory entry"). */
export interface Bitmap {
  name: string
  /** Where its table is, bytes. */
  tableOffset: number
  /** Entries of its table. */
  tableSize: number
  /** A bit stands for 2^granularityBits bytes. */
  granularityBits: number
  /** It was not stored by whoever opened it last: what it says is out of date. */
  inUse: boolean
  /** It records what is written. */
  auto: boolean
}

/** The type of dirty tracking bitmaps, the only one there is. */
const DIRTY_TRACKING = 1
const IN_USE = 1
const AUTO = 2
/** Extra data may be ignored; QEMU refuses both it and the flag. */
const EXTRA_DATA_COMPATIBLE = 4
/** Bytes of an entry before its extra data and name. */
const ENTRY_BYTES = 24

/**
 * Whether the bitmaps that the header names are those of the image as it is: a program that knows
 * nothing of bitmaps clears this flag when it writes.
 */
export function bitmapsAreCurrent(header: Qcow2Header): boolean {
  return (header.autoclearFeatures & BITMAPS) !== 0n
}

/**
 * The persistent bitmaps of an image, those in use too; none where they are not current.
 * @throws BackupError BAD_IMAGE, UNSUPPORTED or IO
 */
export async function readBitmaps(file: ImageFile, header: Qcow2Header): Promise<Bitmap[]> {
  const extension = header.extensions.bitmaps
  if (!extension || !bitmapsAreCurrent(header)) return []
  const { directoryOffset, directorySize } = extension
  if (directoryOffset === 0 || directoryOffset + directorySize > file.size) {
    throw badImage(file.path, 'the bitmap directory lies outside of the file')
  }
  const directory = await readAt(file, directoryOffset, directorySize)
  return decodeBitmapDirectory(directory, extension, header, file.path)
}

/**
 * Decodes a bitmap directory, as strictly as QEMU does when it opens the image.
 * @param path for messages
 * @throws BackupError BAD_IMAGE, or UNSUPPORTED for extra data and unknown types of bitmaps
 */
export function decodeBitmapDirectory(
  directory: Buffer,
  extension: Pick<BitmapsExtension, 'count'>,
  header: Pick<Qcow2Header, 'clusterSize'>,
  path: string,
): Bitmap[] {
  const bitmaps = new Map<string, Bitmap>()
  for (let at = 0; at < directory.length; ) {
    const left = directory.length - at
    const bytes = left < ENTRY_BYTES ? ENTRY_BYTES : entryBytes(directory, at)
    if (bytes > left) throw badImage(path, 'the bitmap directory ends inside an entry')
    const bitmap = decodeEntry(directory.subarray(at, at + bytes), header, path)
    if (bitmaps.has(bitmap.name)) {
      throw badImage(path, `has two bitmaps ${quoted(bitmap.name)}`)
    }
    bitmaps.set(bitmap.name, bitmap)
    at += bytes
  }
  if (bitmaps.size !== extension.count) {
    throw badImage(path, `has ${bitmaps.size} bitmaps, where its header says ${extension.count}`)
  }
  return [...bitmaps.values()]
}

/** Bytes of the entry at `at`, with what pads it. */
function entryBytes(directory: Buffer, at: number): number {
  const nameSize = directory.readUInt16BE(at + 18)
  const extraDataSize = directory.readUInt32BE(at + 20)
  return Math.ceil((ENTRY_BYTES + extraDataSize + nameSize) / 8) * 8
}

function decodeEntry(
  entry: Buffer,
  { clusterSize }: Pick<Qcow2Header, 'clusterSize'>,
  path: string,
): Bitmap {
  const flags = entry.readUInt32BE(12)
  const nameSize = entry.readUInt16BE(18)
  const extraDataSize = entry.readUInt32BE(20)
  const nameAt = ENTRY_BYTES + extraDataSize
  const name = entry.toString('utf8', nameAt, nameAt + nameSize)
  const bad = (why: string) => badImage(path, `bitmap ${quoted(name)}: ${why}`)
  if (nameSize > MAX_BITMAP_NAME) throw badImage(path, 'the name of a bitmap is too long')
  if (extraDataSize !== 0 || (flags & EXTRA_DATA_COMPATIBLE) !== 0) {
    throw unsupported(path, `bitmap ${quoted(name)} has extra data`)
  }
  if ((flags & ~(IN_USE | AUTO)) !== 0) throw bad(`unknown flags 0x${flags.toString(16)}`)
  if (entry[16] !== DIRTY_TRACKING) {
    throw unsupported(path, `bitmap ${quoted(name)} is of unknown type ${entry[16]}`)
  }
  const granularityBits = entry[17]
  if (granularityBits < MIN_GRANULARITY_BITS || granularityBits > MAX_GRANULARITY_BITS) {
    throw bad(`a granularity of 2^${granularityBits} bytes`)
  }
  const tableOffset = u64(entry, 0, 'bitmap table offset', path)
  if (tableOffset === 0 || tableOffset % clusterSize !== 0) throw bad('table offset invalid')
  const tableSize = entry.readUInt32BE(8)
  if (tableSize === 0) throw bad('its table is empty')
  if (tableSize * clusterSize > MAX_BITMAP_BYTES) throw bad('its table is too large')
  return {
    name,
    tableOffset,
    tableSize,
    granularityBits,
    inUse: (flags & IN_USE) !== 0,
    auto: (flags & AUTO) !== 0,
  }
}
