import { BackupError, badImage } from '../../errors.ts'
import { quoted } from '../../text.ts'
import { type FormatError, inFile, malformed, notSupported } from '../format-error.ts'
import { type ImageFile, readAt } from '../read.ts'
import {
  BITMAPS,
  MAX_BITMAP_BYTES,
  MAX_BITMAP_NAME,
  MAX_GRANULARITY_BITS,
  MIN_GRANULARITY_BITS,
} from './constants.ts'
import { cString, u64 } from './fields.ts'
import type { BitmapsExtension, Qcow2Header } from './header-fields.ts'
import { END_OF_FILES, requireBitmaps } from './validate.ts'

/** An entry of the bitmap directory (spec: "Bitmap directory entry"). */
export interface Bitmap {
  name: string
  /** Where its table is, bytes. */
  tableOffset: number
  /** Entries of its table. */
  tableSize: number
  /** Granularity is 2^granularityBits bytes. */
  granularityBits: number
  /** The last program that opened it did not store it: its content is out of date. */
  inUse: boolean
  /** It records writes. */
  auto: boolean
  /**
   * The raw directory entry, padding included: an edit that rewrites the directory
   * keeps every byte that is not meant to change. None of a bitmap that is not stored yet.
   */
  raw?: Buffer
}

/** The type of dirty tracking bitmaps, the only one there is. */
const DIRTY_TRACKING = 1
const IN_USE = 1
const AUTO = 2
/** Extra data may be ignored; QEMU refuses both it and the flag. */
const EXTRA_DATA_COMPATIBLE = 4
/** Bytes of an entry before its extra data and name. */
const ENTRY_BYTES = 24
/** Bytes of a directory that are read past the end of the file, where they read as zero. */
const PAST_END = 128 * 1024

/**
 * Whether the bitmaps that the header names are those of the image as it is: a program that knows
 * nothing of bitmaps clears this flag when it writes.
 */
export function bitmapsAreCurrent(header: Pick<Qcow2Header, 'autoclearFeatures'>): boolean {
  return (header.autoclearFeatures & BITMAPS) !== 0n
}

/** Entries that the table of a bitmap has for a disk of this size. */
export function bitmapTableSize(
  { virtualSize, clusterSize }: Pick<Qcow2Header, 'virtualSize' | 'clusterSize'>,
  { granularityBits }: Pick<Bitmap, 'granularityBits'>,
): number {
  const bits = Math.ceil(virtualSize / 2 ** granularityBits)
  return Math.ceil(Math.ceil(bits / 8) / clusterSize)
}

/** Whether a bitmap is larger than QEMU's limit. */
export function bitmapIsTooLarge(
  header: Pick<Qcow2Header, 'virtualSize' | 'clusterSize'>,
  bitmap: Pick<Bitmap, 'granularityBits'>,
): boolean {
  return bitmapTableSize(header, bitmap) * header.clusterSize > MAX_BITMAP_BYTES
}

/**
 * The granularity of a bitmap that is made without one, bytes: the size of clusters within limits, as QEMU
 * takes it (bdrv_get_default_bitmap_granularity).
 */
export function defaultGranularity(clusterSize: number): number {
  return Math.min(Math.max(clusterSize, 4096), 65536)
}

/** The bits of a granularity in bytes; undefined if no bitmap can have it. */
export function granularityBitsOf(granularity: number): number | undefined {
  const bits = Math.log2(granularity)
  const can = Number.isInteger(bits) && bits >= MIN_GRANULARITY_BITS && bits <= MAX_GRANULARITY_BITS
  return can ? bits : undefined
}

/**
 * The persistent bitmaps of an image, those in use too; none where they are not current.
 * @throws BackupError BAD_IMAGE, UNSUPPORTED or IO
 */
export async function readBitmaps(file: ImageFile, header: Qcow2Header): Promise<Bitmap[]> {
  return bitmapsAreCurrent(header) ? await readDirectory(file, header) : []
}

/**
 * The bitmaps that an image had when a program that keeps none wrote to it, as far as a name, a
 * granularity and flags go: their tables may be overwritten. None where they are current.
 * @returns undefined if it is not known any more which there were
 * @throws BackupError IO
 */
export async function readStaleBitmaps(
  file: ImageFile,
  header: Qcow2Header,
): Promise<Bitmap[] | undefined> {
  const { bitmaps: extension } = header.extensions
  if (!extension || extension.count === 0 || bitmapsAreCurrent(header)) return []
  try {
    inFile(file.path, () => requireBitmaps(extension, header))
    return await readDirectory(file, header)
  } catch (error) {
    if (error instanceof BackupError && error.code !== 'IO') return undefined
    throw error
  }
}

async function readDirectory(file: ImageFile, header: Qcow2Header): Promise<Bitmap[]> {
  const extension = header.extensions.bitmaps
  if (!extension) return []
  const { directoryOffset, directorySize } = extension
  if (directorySize === 0) {
    const why = 'bitmap directory size is zero'
    throw badImage(file.path, why, `Requested ${why}`)
  }
  if (directoryOffset >= file.size) {
    const why = 'the bitmap directory is outside the file'
    throw badImage(file.path, why, unsound(''))
  }
  // Bounded by the directory's bytes: a cut entry is reported, and nothing follows it.
  const most = file.size - directoryOffset + PAST_END
  const directory = await readAt(file, directoryOffset, Math.min(directorySize, most))
  return inFile(file.path, () => decodeBitmapDirectory(directory, extension, header))
}

/**
 * Decodes a bitmap directory, as strictly as QEMU does when it opens the image.
 * @throws FormatError, also for extra data and unknown types of bitmaps
 */
export function decodeBitmapDirectory(
  directory: Buffer,
  { count }: Pick<BitmapsExtension, 'count'>,
  header: Pick<Qcow2Header, 'clusterSize' | 'virtualSize' | 'autoclearFeatures'>,
): Bitmap[] {
  const bitmaps: Bitmap[] = []
  for (let at = 0; at < directory.length; ) {
    const left = directory.length - at
    if (left < ENTRY_BYTES) throw cut()
    if (bitmaps.length === count) {
      throw malformed(
        `has more bitmaps than the ${count} that its header says`,
        'More bitmaps found than specified in header extension',
      )
    }
    const bytes = entryBytes(directory, at)
    if (bytes > left) throw cut()
    bitmaps.push(decodeEntry(directory.subarray(at, at + bytes), header))
    at += bytes
  }
  if (bitmaps.length < count) {
    throw malformed(
      `has ${bitmaps.length} bitmaps, where its header says ${count}`,
      'Less bitmaps found than specified in header extension',
    )
  }
  requireUnique(bitmaps)
  return bitmaps
}

/** QEMU's message for any fault of an entry. */
function unsound(name: string): string {
  return `Bitmap '${name}' doesn't satisfy the constraints`
}

function cut(): FormatError {
  const why = 'the bitmap directory ends inside an entry'
  return malformed(why, 'Broken bitmap directory')
}

function requireUnique(bitmaps: readonly Bitmap[]): void {
  const names = new Set<string>()
  for (const { name } of bitmaps) {
    if (names.has(name)) {
      throw malformed(`has two bitmaps ${quoted(name)}`, `Bitmap already exists: ${name}`)
    }
    names.add(name)
  }
}

/** Length of the entry at `at` with its padding, bytes. */
function entryBytes(directory: Buffer, at: number): number {
  const nameSize = directory.readUInt16BE(at + 18)
  const extraDataSize = directory.readUInt32BE(at + 20)
  return Math.ceil((ENTRY_BYTES + extraDataSize + nameSize) / 8) * 8
}

function decodeEntry(
  entry: Buffer,
  header: Pick<Qcow2Header, 'clusterSize' | 'virtualSize' | 'autoclearFeatures'>,
): Bitmap {
  const { clusterSize, virtualSize } = header
  const flags = entry.readUInt32BE(12)
  const nameSize = entry.readUInt16BE(18)
  const extraDataSize = entry.readUInt32BE(20)
  const nameAt = ENTRY_BYTES + extraDataSize
  const name = cString(entry.subarray(nameAt, nameAt + nameSize))
  const bad = (why: string) => malformed(`bitmap ${quoted(name)}: ${why}`, unsound(name))
  if (extraDataSize !== 0 || (flags & EXTRA_DATA_COMPATIBLE) !== 0) {
    const why = `bitmap ${quoted(name)} has extra data`
    throw notSupported(why, extraDataSize ? 'Bitmap extra data is not supported' : unsound(name))
  }
  if (nameSize > MAX_BITMAP_NAME) throw malformed('the name of a bitmap is too long', unsound(name))
  if ((flags & ~(IN_USE | AUTO)) !== 0) throw bad(`unknown flags 0x${flags.toString(16)}`)
  if (entry[16] !== DIRTY_TRACKING) {
    throw notSupported(`bitmap ${quoted(name)} is of unknown type ${entry[16]}`, unsound(name))
  }
  const granularityBits = entry[17]
  if (granularityBits < MIN_GRANULARITY_BITS || granularityBits > MAX_GRANULARITY_BITS) {
    throw bad(`a granularity of 2^${granularityBits} bytes`)
  }
  const tableOffset = u64(entry, 0)
  const invalid = tableOffset === 0 || tableOffset % clusterSize !== 0
  if (invalid || tableOffset >= END_OF_FILES) throw bad('table offset invalid')
  const tableSize = entry.readUInt32BE(8)
  if (tableSize === 0) throw bad('its table is empty')
  if (tableSize * clusterSize > MAX_BITMAP_BYTES) throw bad('its table is too large')
  const inUse = (flags & IN_USE) !== 0
  // One that was not stored, or is not current, may be of a disk that has grown since.
  const isOfDisk = !inUse && bitmapsAreCurrent(header)
  if (isOfDisk && virtualSize > tableSize * clusterSize * 8 * 2 ** granularityBits) {
    throw bad('its table is too small for the disk')
  }
  const auto = (flags & AUTO) !== 0
  return { name, tableOffset, tableSize, granularityBits, inUse, auto, raw: entry }
}
