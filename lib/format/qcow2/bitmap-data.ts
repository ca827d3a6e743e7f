import { badImage } from '../../errors.ts'
import { hex, quoted } from '../../text.ts'
import { Turns } from '../../turns.ts'
import { inFile, malformed } from '../format-error.ts'
import { type ImageFile, readAt } from '../read.ts'
import type { Bitmap } from './bitmaps.ts'
import { BitRuns, type DirtyRun } from './bits.ts'
import type { Qcow2Header } from './header-fields.ts'
import { BitmapWork } from './work.ts'

/** Neighbouring clusters of bits: at `offset` of the image, or all alike and not stored. */
export interface BitsRun {
  /** Bytes of bits. */
  length: number
  /** Bytes; undefined if every bit is `ones`. */
  offset?: number
  ones: boolean
}

/** Bytes of a table, and of bits, that are read at a time. */
const PART = 64 * 1024
/** Bytes of bits decoded at a time: at most 4096 runs. */
const STEP = 512
/** Runs per batch, about. */
const BATCH = 4096

/** Bits 9 to 55 of an entry, in its halves: the offset of a cluster. Bit 0: all ones, if that is 0. */
const OFFSET_HIGH = 0x00ffffff
const OFFSET_LOW = 0xfffffe00
const ALL_ONES = 1

/**
 * The ranges of a bitmap: batches of ordered, contiguous runs from 0 to the virtual size,
 * neighbours differ. Table and bits are read as they are asked for, a part at a time.
 * REQUIRES: `tableSize` is `bitmapTableSize`.
 * @param work that of all bitmaps of the image that are read together; default: this one's alone
 * @throws BackupError BAD_IMAGE for a malformed table entry, IO, ABORTED
 */
export async function* bitmapRuns(
  file: ImageFile,
  header: Pick<Qcow2Header, 'virtualSize' | 'clusterSize'>,
  bitmap: Bitmap,
  work?: BitmapWork,
  signal?: AbortSignal,
): AsyncGenerator<readonly DirtyRun[]> {
  const runs = new BitRuns(2 ** bitmap.granularityBits, header.virtualSize)
  const stretches = bitmapStretches(file, header.clusterSize, bitmap, work, signal)
  const turns = new Turns(file.path, signal)
  for await (const { offset, length, ones } of stretches) {
    if (offset === undefined) {
      runs.addSame(ones, length * 8)
      continue
    }
    for (let done = 0; done < length; done += PART) {
      const bytes = await readAt(file, offset + done, Math.min(PART, length - done))
      for (let at = 0; at < bytes.length; at += STEP) {
        const pause = turns.step()
        if (pause) await pause
        runs.addBits(bytes.subarray(at, at + STEP))
        if (runs.ready >= BATCH) yield runs.take()
      }
    }
  }
  const last = runs.end()
  if (last.length > 0) yield last
}

/** How many bits are set in each value of a byte. */
const SET_BITS = Uint8Array.from({ length: 256 }, (_, byte) => {
  let bits = 0
  for (let rest = byte; rest > 0; rest >>= 1) bits += rest & 1
  return bits
})

/**
 * Guest bytes in the granules that a bitmap has as dirty. As `bitmapRuns`, but any number of runs
 * costs the same.
 * @param onPosition receives the guest bytes counted so far
 * @throws BackupError BAD_IMAGE for a malformed table entry, IO, ABORTED
 */
export async function dirtyBytes(
  file: ImageFile,
  header: Pick<Qcow2Header, 'virtualSize' | 'clusterSize'>,
  bitmap: Bitmap,
  work?: BitmapWork,
  signal?: AbortSignal,
  onPosition?: (position: number) => void,
): Promise<number> {
  const turns = new Turns(file.path, signal)
  const granularity = 2 ** bitmap.granularityBits
  const bits = Math.ceil(header.virtualSize / granularity)
  let dirty = 0
  /** Whether the last bit, whose granule the end of the disk may cut, is set. */
  let last = false
  let at = 0
  const count = (bytes: Uint8Array) => {
    const whole = Math.min(bytes.length, Math.max(0, Math.floor((bits - at) / 8)))
    for (let i = 0; i < whole; i++) dirty += SET_BITS[bytes[i]]
    const rest = Math.min(8, bits - at - whole * 8)
    if (whole < bytes.length && rest > 0) dirty += SET_BITS[bytes[whole] & ((1 << rest) - 1)]
    const lastBit = bits - 1 - at
    if (lastBit >= 0 && lastBit < bytes.length * 8) {
      last = ((bytes[lastBit >> 3] >> (lastBit & 7)) & 1) !== 0
    }
    at += bytes.length * 8
  }
  for await (const { offset, length, ones } of bitmapStretches(
    file,
    header.clusterSize,
    bitmap,
    work,
    signal,
  )) {
    if (offset === undefined) {
      const meant = Math.max(0, Math.min(length * 8, bits - at))
      if (ones) dirty += meant
      if (at < bits && at + length * 8 >= bits) last = ones
      at += length * 8
    }
    for (let done = 0; offset !== undefined && done < length; done += PART) {
      await turns.step()
      count(await readAt(file, offset + done, Math.min(PART, length - done)))
      onPosition?.(Math.min(at * granularity, header.virtualSize))
    }
  }
  return dirty * granularity - (last ? bits * granularity - header.virtualSize : 0)
}

/**
 * Where the bits of a bitmap are, in order. Those past the end of the disk may be anything.
 * @throws BackupError BAD_IMAGE for a malformed table entry, IO, ABORTED
 */
export async function* bitmapStretches(
  file: ImageFile,
  clusterSize: number,
  bitmap: Bitmap,
  work = new BitmapWork(file.size),
  signal?: AbortSignal,
): AsyncGenerator<BitsRun> {
  const bytes = bitmap.tableSize * 8
  const turns = new Turns(file.path, signal)
  // Nothing that is missing may count as clean.
  if (bitmap.tableOffset + bytes > file.size) {
    throw badImage(
      file.path,
      `the table of bitmap ${quoted(bitmap.name)} is past the end of the file`,
    )
  }
  for (let done = 0; done < bytes; done += PART) {
    await turns.step()
    const part = await readAt(file, bitmap.tableOffset + done, Math.min(PART, bytes - done))
    const stretches = inFile(file.path, () => decodePart(part, file.size, clusterSize, bitmap))
    for (const stretch of stretches) {
      if (stretch.offset !== undefined && !work.allows(stretch.offset, stretch.length)) {
        const why = `bitmap ${quoted(bitmap.name)} refers to the same clusters of bits over and over`
        throw badImage(file.path, why)
      }
      yield stretch
    }
  }
}

function decodePart(
  part: Buffer,
  fileSize: number,
  clusterSize: number,
  { name }: Bitmap,
): BitsRun[] {
  const stretches: BitsRun[] = []
  for (let at = 0; at < part.length; at += 8) {
    const high = part.readUInt32BE(at)
    const low = part.readUInt32BE(at + 4)
    const start = (high & OFFSET_HIGH) * 2 ** 32 + ((low & OFFSET_LOW) >>> 0)
    const ones = (low & ALL_ONES) !== 0
    const bad = (why: string) =>
      malformed(`bitmap ${quoted(name)}: data cluster at ${hex(start)} ${why}`)
    const unknown = (high & ~OFFSET_HIGH) !== 0 || (low & ~OFFSET_LOW & ~ALL_ONES) !== 0
    if (unknown || (ones && start !== 0)) throw bad('has unknown flags')
    if (start % clusterSize !== 0) throw bad('is unaligned')
    if (start !== 0 && start + clusterSize > fileSize) throw bad('is past the end of the file')

    const offset = start === 0 ? undefined : start
    const last = stretches[stretches.length - 1]
    const next = last?.offset === undefined ? undefined : last.offset + last.length
    if (last && last.ones === ones && next === offset) last.length += clusterSize
    else stretches.push({ length: clusterSize, offset, ones })
  }
  return stretches
}

/** Whether an entry of a bitmap's table is an offset, or the flag of all ones, or nothing. */
export function isSoundEntry(table: Buffer, at: number, clusterSize: number): boolean {
  const high = table.readUInt32BE(at)
  const low = table.readUInt32BE(at + 4)
  if ((high & ~OFFSET_HIGH) !== 0 || (low & ~OFFSET_LOW & ~ALL_ONES) !== 0) return false
  const offset = (high & OFFSET_HIGH) * 2 ** 32 + ((low & OFFSET_LOW) >>> 0)
  return offset === 0 || ((low & ALL_ONES) === 0 && offset % clusterSize === 0)
}
