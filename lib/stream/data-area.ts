import type { TargetWriter } from '../copy/target/target.ts'
import { BackupError } from '../errors.ts'
import type { Range } from '../extents/range-set.ts'
import type { Outlet } from './outlet.ts'

/** Writes that the copy has under way: each has a copy of its bytes. */
const REQUESTS = 16
const MAX_ZEROES = 2 ** 20

/**
 * The data of an image as the writes of a copy of the whole disk: what lies in the ranges that the image
 * stores goes to the stream, one range behind the other. What was not written there is zero. The copy's
 * writes rise; they are taken one after the other.
 */
export class DataArea implements TargetWriter {
  readonly kind = 'writer'
  /** The zeroes of the ranges are known by what is not written. */
  readonly canZero = true
  readonly requests = REQUESTS
  /** Why a write was refused: the disk is not what it was when the layout was made. */
  change: BackupError | undefined
  readonly #source: string
  readonly #outlet: Outlet
  readonly #ranges: Iterator<Range>
  #range: Range | undefined
  /** Guest bytes up to here were dealt with. */
  #position = 0
  #before: Promise<void> = Promise.resolve()

  /**
   * @param source its name, for messages
   * @param ranges guest bytes that are stored, in order
   */
  constructor(source: string, outlet: Outlet, ranges: Iterable<Range>) {
    this.#source = source
    this.#outlet = outlet
    this.#ranges = ranges[Symbol.iterator]()
    this.#range = this.#next()
  }

  write(offset: number, bytes: Uint8Array): Promise<void> {
    const written = this.#before.then(() => this.#take(offset, bytes))
    // Whoever waits for the next one need not hear of this one again.
    this.#before = written.catch(() => {})
    return written
  }

  /** Zeroes of the disk: in a range that is stored they are written when the next data comes. */
  async zero(): Promise<void> {}

  async flush(): Promise<void> {
    await this.#before
  }

  /** Everything was written: the rest is zero. */
  async finish(): Promise<void> {
    await this.#before
    while (this.#range) await this.#fill(this.#range.start + this.#range.length)
  }

  async #take(offset: number, bytes: Uint8Array): Promise<void> {
    if (this.change) throw this.change
    let taken = 0
    while (taken < bytes.length) {
      const at = offset + taken
      while (this.#range && this.#range.start + this.#range.length <= at) {
        await this.#fill(this.#range.start + this.#range.length)
      }
      const range = this.#range
      if (!range || at < range.start) {
        const end = Math.min(range?.start ?? Number.POSITIVE_INFINITY, offset + bytes.length)
        this.#requireZero(at, bytes.subarray(taken, end - offset))
        taken = end - offset
        continue
      }
      await this.#fill(at)
      const length = Math.min(range.start + range.length - at, bytes.length - taken)
      await this.#outlet.write(bytes.subarray(taken, taken + length))
      this.#advance(at + length)
      taken += length
    }
  }

  /** Zeroes up to `end`, which lies in the range or at its end. */
  async #fill(end: number): Promise<void> {
    const start = Math.max(this.#position, this.#range!.start)
    for (let at = start; at < end; at += MAX_ZEROES) {
      await this.#outlet.write(Buffer.alloc(Math.min(MAX_ZEROES, end - at)))
    }
    this.#advance(end)
  }

  #advance(position: number): void {
    this.#position = position
    const range = this.#range
    if (range && position >= range.start + range.length) this.#range = this.#next()
  }

  #next(): Range | undefined {
    const { done, value } = this.#ranges.next()
    return done ? undefined : value
  }

  /** The layout was told before anything was read. */
  #requireZero(offset: number, bytes: Uint8Array): void {
    if (bytes.every((byte) => byte === 0)) return
    const why = `has data at ${offset} where it had none when the stream began`
    this.change = new BackupError('SOURCE_CHANGED', this.#source, why)
    throw this.change
  }
}
