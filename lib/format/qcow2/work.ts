/** Changes within L2 tables that any image may have. */
const LEAST = 2 ** 16

/**
 * How often the status of the guest may change within L2 tables, in one pass. A sound image has no
 * more changes than its file has room for entries; but a small file can name one table a million
 * times, and so claim more than can ever be told. One kind of cluster all over a table is no change:
 * a table of zeroes may be shared by all of a disk.
 */
export class TableWork {
  readonly #most: number
  #done = 0
  #last = -1

  /**
   * @param fileSize bytes of the image
   * @param extendedL2 an entry, of 16 bytes, has 32 subclusters
   */
  constructor(fileSize: number, extendedL2: boolean) {
    this.#most = LEAST + (extendedL2 ? fileSize * 2 : fileSize / 8)
  }

  /**
   * Counts changes, the last of which is at a guest offset. A lower one begins another pass; the same
   * again is the same change.
   * @returns whether a sound image may have so many
   */
  allows(at: number, changes: number): boolean {
    if (at === this.#last) return true
    if (at < this.#last) this.#done = 0
    this.#last = at
    this.#done += changes
    return this.#done <= this.#most
  }
}

/** What is said of an image that needs more. */
export const OVER_AND_OVER = 'the image names the same tables over and over'
