/**
 * How much work an image may ask for. A small file can name one table, cluster or bitmap any number of
 * times, and so claim more than can ever be read. A sound image names each of its clusters once, but
 * for tables of zeroes and tables shared with snapshots, so the limit follows from its size.
 */

/** Changes within L2 tables that any image may have. */
const BASE_CHANGES = 2 ** 16
/** Parts of tables that any image may have read, and how often it may have each of its own read. */
const BASE_READS = 4096
const READS_PER_PART = 4
/** Bytes of data that any image may name, and how often it may name each of its bytes. */
const BASE_DATA = 2 ** 30
const DATA_PER_BYTE = 16
/** Compressed clusters that are remembered, and how many of them may be named again. */
const REMEMBERED = 2 ** 16
const MAX_REPEATED = 1024

/** Message about an image that exceeds the limit. */
export const OVER_AND_OVER = 'the image refers to the same tables over and over'
export const DATA_OVER_AND_OVER = 'the image refers to the same clusters over and over'

/**
 * How often the status of the guest may change within L2 tables, in one pass. A sound image has no
 * more changes than its file can hold entries. A table with one kind of cluster is not a change:
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
    this.#most = BASE_CHANGES + (extendedL2 ? fileSize * 2 : fileSize / 8)
  }

  /**
   * Counts changes, the last of which is at a guest offset. A lower one begins another pass; the same
   * again is the same change.
   * @returns whether a sound image may have this many
   */
  allows(at: number, changes: number): boolean {
    if (at === this.#last) return true
    if (at < this.#last) this.#done = 0
    this.#last = at
    this.#done += changes
    return this.#done <= this.#most
  }
}

/** How often parts of L2 tables may be read, in one pass. */
export class TableReads {
  readonly #most: number
  #done = 0

  /**
   * @param fileSize bytes of the image
   * @param partSize bytes that are read at a time
   */
  constructor(fileSize: number, partSize: number) {
    this.#most = BASE_READS + (fileSize / partSize) * READS_PER_PART
  }

  /** Counts a part that is read; whether a sound image may ask for it. */
  allows(): boolean {
    return ++this.#done <= this.#most
  }

  /** Another pass begins. */
  restart(): void {
    this.#done = 0
  }
}

/** How much data the entries of an image may name, in one pass through the guest. */
export class DataWork {
  readonly #most: number
  #bytes = 0
  #last = -1
  /** Offsets of compressed clusters. */
  readonly #streams = new Set<number>()
  #repeated = 0

  /** @param fileSize bytes of the image */
  constructor(fileSize: number) {
    this.#most = BASE_DATA + fileSize * DATA_PER_BYTE
  }

  /**
   * Counts data that is stored as it is, from a guest offset on. A lower one begins another pass; the
   * same again is the same data.
   * @returns whether a sound image may have this much
   */
  allowsData(at: number, bytes: number): boolean {
    if (this.#isNew(at)) this.#bytes += bytes
    return this.#bytes <= this.#most
  }

  /**
   * Counts a compressed cluster, whose cost does not follow from its size.
   * @param offset of its stream, bytes
   */
  allowsStream(at: number, offset: number): boolean {
    if (!this.#isNew(at)) return true
    if (this.#streams.has(offset)) this.#repeated++
    else if (this.#streams.size === REMEMBERED) this.#streams.clear()
    this.#streams.add(offset)
    return this.#repeated <= MAX_REPEATED
  }

  #isNew(at: number): boolean {
    if (at === this.#last) return false
    if (at < this.#last) {
      this.#bytes = 0
      this.#repeated = 0
      this.#streams.clear()
    }
    this.#last = at
    return true
  }
}

/** Clusters of bits that may be named again: damage, not a way to make work. */
const MAX_REPEATED_BITS = 16

/**
 * How many bytes of bits the tables of an image's bitmaps may name: no more than its file has, and
 * hardly any twice. One for all bitmaps that are read, once each.
 */
export class BitmapWork {
  #left: number
  readonly #seen = new Set<number>()
  #repeated = 0

  /** @param fileSize bytes of the image */
  constructor(fileSize: number) {
    this.#left = fileSize
  }

  /**
   * Counts neighbouring clusters of bits at an offset.
   * @returns whether a sound image may name them, too
   */
  allows(offset: number, bytes: number): boolean {
    this.#left -= bytes
    if (this.#seen.has(offset)) this.#repeated++
    else if (this.#seen.size === REMEMBERED) this.#seen.clear()
    this.#seen.add(offset)
    return this.#left >= 0 && this.#repeated <= MAX_REPEATED_BITS
  }
}
