/** What direct reads want offsets, lengths and memory to be a multiple of, bytes; suits all disks. */
export const ALIGNMENT = 4096

/** Bytes of a page of WebAssembly. */
const PAGE = 2 ** 16

/** What is used of it; it belongs to the language, but not to the types of Node. */
declare const WebAssembly: {
  Memory: new (limits: { initial: number }) => { readonly buffer: ArrayBuffer }
}

/** The next aligned place at or above `n`. */
export function aligned(n: number): number {
  return Math.ceil(n / ALIGNMENT) * ALIGNMENT
}

/**
 * Memory that direct reads can go into. A Buffer may start anywhere, but a WebAssembly memory is
 * mapped by itself, so it starts at a page. Where it did not, reads would go through the page cache.
 */
export function alignedMemory(bytes: number): Buffer {
  return Buffer.from(new WebAssembly.Memory({ initial: Math.ceil(bytes / PAGE) }).buffer)
}

/**
 * Memory that is given back in the order in which it was taken, so that it takes no looking for:
 * what is taken follows what was taken before, and from the end starts over.
 */
export class Ring {
  readonly #memory: Buffer
  /** Starts of what is taken, oldest first. */
  readonly #taken: number[] = []
  /** Where the next part starts. */
  #next = 0

  constructor(bytes: number) {
    this.#memory = alignedMemory(bytes)
  }

  /**
   * Memory of `length` bytes, which are more than 0, from an aligned place on.
   * @returns undefined if there is not enough until something is given back
   */
  take(length: number): Buffer | undefined {
    const bytes = aligned(length)
    const start = this.#place(bytes)
    if (start === undefined) return undefined
    this.#taken.push(start)
    this.#next = start + bytes
    return this.#memory.subarray(start, start + length)
  }

  /** Gives the oldest part back. REQUIRES: nobody uses it any more. */
  give(): void {
    this.#taken.shift()
  }

  #place(bytes: number): number | undefined {
    const size = this.#memory.length
    if (this.#taken.length === 0) return bytes <= size ? 0 : undefined
    const oldest = this.#taken[0]
    // Never up to the oldest part, where full and empty would look the same.
    if (this.#next <= oldest) return this.#next + bytes < oldest ? this.#next : undefined
    if (this.#next + bytes <= size) return this.#next
    return bytes < oldest ? 0 : undefined
  }
}
