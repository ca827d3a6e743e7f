/** An extent as an imageio server lists it. Absent keys: no `zero` means data, no `hole` unknown. */
export interface ListedExtent {
  /** Bytes. */
  start: number
  length: number
  zero: boolean
  hole: boolean
  dirty: boolean
}

/** Which list was asked for. */
export type Context = 'zero' | 'dirty'

/** More characters without the end of an extent are no list of extents. */
const MAX_EXTENT_CHARACTERS = 4096

/** What a server sent is not the list of extents that was asked for. */
export class BadList extends Error {}

/**
 * Reads a list of extents, `[{"start":0,"length":65536,"zero":false,"hole":false},…]`, as it comes in, in
 * memory for the part that came last. Strict: contiguous from 0, no more than `size` bytes, extents of at
 * least a sector on the average. Keys that are not known are skipped where their values are plain.
 */
export class ExtentParser {
  readonly #context: Context
  readonly #size: number
  #rest = ''
  #count = 0
  #end = 0

  /** @param size of the disk, bytes */
  constructor(context: Context, size: number) {
    this.#context = context
    this.#size = size
  }

  /** Where the last extent ended, bytes. */
  get end(): number {
    return this.#end
  }

  /**
   * Takes the next part of the body.
   * @returns the extents that are complete
   * @throws BadList
   */
  add(chunk: Buffer): ListedExtent[] {
    // All that has a meaning here is ASCII.
    const text = this.#rest + chunk.toString('latin1')
    const cut = text.lastIndexOf('}') + 1
    this.#rest = text.slice(cut)
    if (this.#rest.length > MAX_EXTENT_CHARACTERS) {
      throw new BadList(`no extent ends in ${this.#rest.length} bytes after offset ${this.#end}`)
    }
    if (cut === 0) return []
    const [, lead] = /^[ \t\r\n]*([[,]?)/.exec(text)!
    if (lead !== (this.#count === 0 ? '[' : ',')) throw this.#notJson()
    const list = text.slice(text.indexOf(lead) + 1, cut)
    let values: unknown[]
    try {
      values = JSON.parse(`[${list}]`)
    } catch {
      throw this.#notJson()
    }
    return values.map((value) => this.#extent(value))
  }

  /**
   * The body is complete.
   * @throws BadList if the list is not
   */
  finish(): void {
    const rest = this.#rest.replace(/[ \t\r\n]+/g, '')
    if (rest !== (this.#count === 0 ? '[]' : ']')) {
      throw new BadList(`the list of extents is cut off after offset ${this.#end}`)
    }
    if (this.#end !== this.#size) {
      throw new BadList(`the extents end at ${this.#end}, the disk at ${this.#size}`)
    }
  }

  #extent(value: unknown): ListedExtent {
    if (typeof value !== 'object' || value === null) throw this.#notJson()
    const { start, length, zero, hole, dirty } = value as Record<string, unknown>
    if (start !== this.#end) {
      throw new BadList(`an extent does not start at ${this.#end}, where the last one ended`)
    }
    if (!Number.isSafeInteger(length) || Number(length) <= 0) {
      throw new BadList(`the extent at ${start} has no valid length`)
    }
    if (Number(length) > this.#size - this.#end) {
      throw new BadList(`the extent at ${start} goes beyond the disk, which ends at ${this.#size}`)
    }
    for (const flag of [zero, hole]) {
      if (flag !== undefined && flag !== null && typeof flag !== 'boolean') {
        throw new BadList(`a flag of the extent at ${start} is neither true nor false`)
      }
    }
    if (this.#context === 'dirty' && typeof dirty !== 'boolean') {
      throw new BadList(`the extent at ${start} does not say whether it is dirty`)
    }
    this.#end += Number(length)
    this.#count++
    // The allowance is for lists of a few.
    if (this.#count > this.#end / 512 + 1024) {
      throw new BadList(`${this.#count} extents for the first ${this.#end} bytes are absurd`)
    }
    const isDirty = this.#context === 'dirty' && dirty === true
    return {
      start,
      length: Number(length),
      zero: zero === true,
      hole: hole === true,
      dirty: isDirty,
    }
  }

  #notJson(): BadList {
    return new BadList(`after offset ${this.#end} it is not a list of extents`)
  }
}
