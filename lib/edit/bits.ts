import { throwIfAborted } from '../errors.ts'
import { bitmapRuns, bitmapStretches } from '../format/qcow2/bitmap-data.ts'
import type { Bitmap } from '../format/qcow2/bitmaps.ts'
import { BitRuns, type DirtyRun } from '../format/qcow2/bits.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { type ImageFile, readInto } from '../format/read.ts'
import type { Turns } from '../turns.ts'

/** Bytes of bits that are read at a time. */
const PART = 2 ** 20
/** Bytes of bits that are decoded at a time. */
const STEP = 512
const ZEROES = Buffer.alloc(PART)

/**
 * The bits of a dirty bitmap in memory, a part for each cluster that they take in an image; parts
 * of which no bit is set take no memory, and those of which all are set share one buffer.
 */
export class Bits {
  /** Granularity: guest bytes per bit. */
  readonly granularity: number
  /** Of the disk, bytes. */
  readonly size: number
  readonly #partBytes: number
  readonly #parts = new Map<number, Buffer>()
  /** The part of which all bits are set; never changed. */
  #ones: Buffer | undefined

  /** @param clusterSize of the image that they are to be stored in, bytes */
  constructor(size: number, granularity: number, clusterSize: number) {
    this.size = size
    this.granularity = granularity
    this.#partBytes = clusterSize
  }

  /** Sets the bit of every granule that has any of the guest bytes from `start` on. */
  add(start: number, length: number): void {
    if (length === 0) return
    const last = Math.floor((start + length - 1) / this.granularity)
    const perPart = this.#partBytes * 8
    for (let bit = Math.floor(start / this.granularity); bit <= last; ) {
      const index = Math.floor(bit / perPart)
      const end = Math.min(last + 1, (index + 1) * perPart)
      if (end - bit === perPart) this.#parts.set(index, this.#allOnes())
      else if (!this.isFull(index)) {
        setBits(this.#part(index), bit - index * perPart, end - index * perPart)
      }
      bit = end
    }
  }

  /** Sets the bits that are set in bytes of another bitmap of this granularity, `at` bytes into it. */
  addBytes(at: number, bytes: Buffer): void {
    for (let done = 0; done < bytes.length; ) {
      const index = Math.floor((at + done) / this.#partBytes)
      const from = at + done - index * this.#partBytes
      const take = Math.min(this.#partBytes - from, bytes.length - done)
      const source = bytes.subarray(done, done + take)
      if (!isZero(source) && !this.isFull(index)) {
        orInto(this.#part(index).subarray(from, from + take), source)
      }
      done += take
    }
  }

  /**
   * Sets the bits of the granules that another bitmap has as dirty.
   * @param turns of the work that it is part of
   * @throws BackupError ABORTED
   */
  async merge(other: Bits, turns: Turns): Promise<void> {
    if (other.granularity !== this.granularity) {
      for (const runs of other.runs()) {
        await turns.step()
        for (const { start, length, dirty } of runs) if (dirty) this.add(start, length)
      }
      return
    }
    for (const [index, bytes] of other.parts()) {
      await turns.step()
      const alike = other.#partBytes === this.#partBytes
      if (alike && other.isFull(index)) this.#parts.set(index, this.#allOnes())
      else this.addBytes(index * other.#partBytes, bytes)
    }
  }

  /** Bytes of memory that they take. */
  get bytes(): number {
    let parts = 0
    for (const index of this.#parts.keys()) if (!this.isFull(index)) parts++
    return parts * this.#partBytes
  }

  /** Whether all bits of a part are known to be set. */
  isFull(index: number): boolean {
    return this.#ones !== undefined && this.#parts.get(index) === this.#ones
  }

  /**
   * Guest bytes in the granules that are dirty.
   * @param turns of the work that it is part of
   * @throws BackupError ABORTED
   */
  async dirtyBytes(turns: Turns): Promise<number> {
    const bits = Math.ceil(this.size / this.granularity)
    const perPart = this.#partBytes * 8
    let set = 0
    for (const [index, part] of this.#parts) {
      await turns.step()
      // Bits past the end of the disk may be set that mean nothing.
      const meant = Math.min(bits - index * perPart, perPart)
      if (meant <= 0) continue
      set += countBits(part.subarray(0, meant >> 3))
      if (meant % 8 > 0) set += ONES[part[meant >> 3] & (2 ** (meant % 8) - 1)]
    }
    const last = this.#parts.get(Math.floor((bits - 1) / perPart))
    const bit = (bits - 1) % perPart
    const cutShort = last !== undefined && (last[bit >> 3] & (1 << (bit & 7))) !== 0
    return set * this.granularity - (cutShort ? bits * this.granularity - this.size : 0)
  }

  /** Contiguous runs from 0 to the size of the disk, neighbours differ; in batches. */
  *runs(): Generator<readonly DirtyRun[]> {
    const runs = new BitRuns(this.granularity, this.size)
    const bits = Math.ceil(this.size / this.granularity)
    const parts = Math.ceil(bits / (this.#partBytes * 8))
    for (let index = 0; index < parts; index++) {
      const part = this.#parts.get(index)
      if (!part || this.isFull(index)) {
        runs.addSame(part !== undefined, this.#partBytes * 8)
        if (runs.ready > 0) yield runs.take()
        continue
      }
      // Not all at once: each of its bits may be a run.
      for (let at = 0; at < part.length; at += STEP) {
        runs.addBits(part.subarray(at, at + STEP))
        yield runs.take()
      }
    }
    yield runs.end()
  }

  /** Clears the unused bits past the end of the disk. */
  trim(): void {
    const bits = Math.ceil(this.size / this.granularity)
    const perPart = this.#partBytes * 8
    for (const index of this.#parts.keys()) {
      const meant = bits - index * perPart
      if (meant >= perPart) continue
      if (meant <= 0) {
        this.#parts.delete(index)
        continue
      }
      const bytes = this.#part(index)
      const whole = meant >> 3
      if ((meant & 7) !== 0) bytes[whole] &= (1 << (meant & 7)) - 1
      bytes.fill(0, Math.ceil(meant / 8))
    }
  }

  /** Parts in which a bit is set, by their index. */
  *parts(): Generator<[number, Buffer]> {
    for (const part of this.#parts) yield part
  }

  /** A part to be changed. */
  #part(index: number): Buffer {
    const known = this.#parts.get(index)
    if (known && !this.isFull(index)) return known
    const part = Buffer.alloc(this.#partBytes, known)
    this.#parts.set(index, part)
    return part
  }

  #allOnes(): Buffer {
    this.#ones ??= Buffer.alloc(this.#partBytes, 0xff)
    return this.#ones
  }
}

/** Bits set in each byte. */
const ONES = Uint8Array.from({ length: 256 }, (_, byte) => {
  let set = 0
  for (let rest = byte; rest > 0; rest >>= 1) set += rest & 1
  return set
})

function countBits(bytes: Buffer): number {
  let set = 0
  for (const byte of bytes) set += ONES[byte]
  return set
}

function isZero(bytes: Buffer): boolean {
  return bytes.length <= ZEROES.length && bytes.equals(ZEROES.subarray(0, bytes.length))
}

/** By words where both are aligned, which is nearly always. */
function orInto(to: Buffer, from: Buffer): void {
  let done = 0
  if (to.byteOffset % 4 === 0 && from.byteOffset % 4 === 0) {
    const words = to.length >> 2
    const target = new Int32Array(to.buffer, to.byteOffset, words)
    const source = new Int32Array(from.buffer, from.byteOffset, words)
    for (let i = 0; i < words; i++) target[i] |= source[i]
    done = words * 4
  }
  for (; done < to.length; done++) to[done] |= from[done]
}

/** Sets bits `from` to `to`, the lowest of a byte first. */
function setBits(bytes: Buffer, from: number, to: number): void {
  let bit = from
  for (; bit < to && (bit & 7) !== 0; bit++) bytes[bit >> 3] |= 1 << (bit & 7)
  const whole = to - (to & 7)
  if (bit < whole) {
    bytes.fill(0xff, bit >> 3, whole >> 3)
    bit = whole
  }
  for (; bit < to; bit++) bytes[bit >> 3] |= 1 << (bit & 7)
}

/** Hooks called while a stored bitmap is added. */
export interface AddOptions {
  signal?: AbortSignal
  /** Called with the guest bytes that are done. */
  onPosition?: (position: number) => void
}

/**
 * Adds the dirty ranges of a stored bitmap, up to the end of the smaller disk.
 * @param bitmap of `file`, of the size of its disk
 * @throws BackupError BAD_IMAGE, IO, ABORTED
 */
export async function addStored(
  bits: Bits,
  file: ImageFile,
  header: Qcow2Header,
  bitmap: Bitmap,
  { signal, onPosition }: AddOptions = {},
): Promise<void> {
  // Bits past the end of the disk may be set and mean nothing.
  const alike = header.virtualSize === bits.size
  if (!alike || 2 ** bitmap.granularityBits !== bits.granularity) {
    let position = 0
    for await (const runs of bitmapRuns(file, header, bitmap, undefined, signal)) {
      for (const { start, length, dirty } of runs) {
        if (dirty && start < bits.size) bits.add(start, Math.min(length, bits.size - start))
        position = start + length
      }
      onPosition?.(position)
    }
    return
  }
  let at = 0
  let last: Promise<void> | undefined
  const spare: Buffer[] = []
  const stretches = bitmapStretches(file, header.clusterSize, bitmap, undefined, signal)
  for await (const { offset, length, ones } of stretches) {
    const start = at * 8 * bits.granularity
    if (ones) bits.add(start, Math.min(length * 8 * bits.granularity, bits.size - start))
    for (let done = 0; offset !== undefined && done < length; done += PART) {
      throwIfAborted(signal, file.path)
      const place = at + done
      onPosition?.(place * 8 * bits.granularity)
      const memory = spare.pop() ?? Buffer.allocUnsafeSlow(PART)
      const part = memory.subarray(0, Math.min(PART, length - done))
      const read = readInto(part, file, offset + done)
      // The next part is read while this one is added.
      await last
      last = read.then((bytes) => {
        bits.addBytes(place, bytes)
        spare.push(memory)
      })
      // It is waited for in its turn.
      last.catch(() => {})
    }
    at += length
  }
  await last
  bits.trim()
}
