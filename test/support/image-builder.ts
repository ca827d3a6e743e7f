/** Builds qcow2 images byte by byte, sound or not, without QEMU: for images that no program makes. */

/** Fields of the header that can be set to anything, by their offset and width in bytes. */
export const HEADER_FIELDS = {
  clusterBits: [20, 4],
  size: [24, 8],
  l1Size: [36, 4],
  l1TableOffset: [40, 8],
  refcountTableOffset: [48, 8],
  refcountTableClusters: [56, 4],
  nbSnapshots: [60, 4],
  snapshotsOffset: [64, 8],
  incompatibleFeatures: [72, 8],
  autoclearFeatures: [88, 8],
  refcountOrder: [96, 4],
  headerLength: [100, 4],
} as const

export type HeaderField = keyof typeof HEADER_FIELDS

const COPIED = 1n << 63n

/** An image of version 3 that is put together cluster by cluster; refcounts follow from its references. */
export class ImageBuilder {
  readonly clusterSize: number
  readonly #refcountOrder: number
  #bytes: Buffer
  #next: number
  readonly #references = new Map<number, number>()
  readonly #fields = new Map<HeaderField, bigint>()
  readonly #extensions: { type: number; data: Buffer }[] = []
  #backing: string | undefined

  /** @param refcountOrder refcounts are 2^refcountOrder bits wide */
  constructor(clusterBits: number, size: number, refcountOrder = 5) {
    this.clusterSize = 2 ** clusterBits
    this.#refcountOrder = refcountOrder
    this.#bytes = Buffer.alloc(this.clusterSize)
    this.#next = this.clusterSize
    this.#references.set(0, 1)
    this.set('clusterBits', clusterBits)
    this.set('size', size)
    this.set('refcountOrder', refcountOrder)
    this.set('headerLength', 112)
  }

  /** Sets a field of the header, whatever the image is like. */
  set(field: HeaderField, value: number | bigint): this {
    this.#fields.set(field, BigInt(value))
    return this
  }

  backing(name: string, format = 'qcow2'): this {
    this.#backing = name
    return this.extension(0xe2792aca, Buffer.from(format))
  }

  extension(type: number, data: Buffer): this {
    this.#extensions.push({ type, data })
    return this
  }

  /**
   * Puts bytes into clusters of their own.
   * @param references how often each cluster is referenced
   * @returns their offset
   */
  put(bytes: Buffer, references = 1): number {
    const offset = this.#next
    const clusters = Math.ceil(bytes.length / this.clusterSize)
    this.#next += clusters * this.clusterSize
    this.#bytes = Buffer.concat([this.#bytes, bytes], this.#next)
    for (let i = 0; i < clusters; i++) this.refer(offset + i * this.clusterSize, references)
    return offset
  }

  /** Counts references to the cluster at an offset. */
  refer(offset: number, references = 1): void {
    const cluster = Math.floor(offset / this.clusterSize)
    this.#references.set(cluster, (this.#references.get(cluster) ?? 0) + references)
  }

  /** Puts an L1 table that names L2 tables; 0: none. */
  l1(tables: readonly number[], copied = false): this {
    const offset = this.put(entries(tables, copied ? COPIED : 0n))
    return this.set('l1Size', tables.length).set('l1TableOffset', offset)
  }

  /** Puts the directory of bitmaps. */
  bitmaps(directory: readonly Buffer[]): this {
    const bytes = Buffer.concat(directory)
    const extension = Buffer.alloc(24)
    extension.writeUInt32BE(directory.length)
    extension.writeBigUInt64BE(BigInt(bytes.length), 8)
    extension.writeBigUInt64BE(BigInt(this.put(bytes)), 16)
    return this.set('autoclearFeatures', 1).extension(0x23852875, extension)
  }

  snapshots(table: readonly Buffer[]): this {
    const offset = this.put(Buffer.concat(table))
    return this.set('nbSnapshots', table.length).set('snapshotsOffset', offset)
  }

  /** The whole image, its refcounts as they should be. */
  finish(): Buffer {
    const perBlock = (this.clusterSize * 8) / 2 ** this.#refcountOrder
    let blocks = 0
    let tables = 1
    // The refcount structures count themselves.
    for (;;) {
      const clusters = this.#next / this.clusterSize + blocks + tables
      const wanted = Math.ceil(clusters / perBlock)
      const room = Math.ceil((wanted * 8) / this.clusterSize)
      if (wanted === blocks && room === tables) break
      blocks = wanted
      tables = room
    }
    const table = this.put(Buffer.alloc(tables * this.clusterSize))
    const first = this.put(Buffer.alloc(blocks * this.clusterSize))
    for (let i = 0; i < blocks; i++) {
      this.#bytes.writeBigUInt64BE(BigInt(first + i * this.clusterSize), table + i * 8)
    }
    const width = 2 ** this.#refcountOrder / 8
    for (const [cluster, count] of this.#references) {
      const at = first + cluster * width
      if (at + width <= this.#bytes.length) this.#bytes.writeUIntBE(count, at, Math.min(width, 6))
    }
    if (!this.#fields.has('refcountTableOffset')) this.set('refcountTableOffset', table)
    if (!this.#fields.has('refcountTableClusters')) this.set('refcountTableClusters', tables)
    this.#writeHeader()
    return this.#bytes
  }

  #writeHeader(): void {
    this.#bytes.write('514649fb00000003', 'hex')
    let at = 112
    const area: Buffer[] = []
    for (const { type, data } of this.#extensions) {
      const bytes = Buffer.alloc(Math.ceil((8 + data.length) / 8) * 8)
      bytes.writeUInt32BE(type)
      bytes.writeUInt32BE(data.length, 4)
      data.copy(bytes, 8)
      area.push(bytes)
    }
    for (const bytes of [...area, Buffer.alloc(8)]) {
      bytes.copy(this.#bytes, at)
      at += bytes.length
    }
    if (this.#backing !== undefined) {
      this.#bytes.write(this.#backing, at)
      this.#bytes.writeBigUInt64BE(BigInt(at), 8)
      this.#bytes.writeUInt32BE(this.#backing.length, 16)
    }
    for (const [field, value] of this.#fields) {
      const [offset, width] = HEADER_FIELDS[field]
      if (width === 8) this.#bytes.writeBigUInt64BE(value, offset)
      else this.#bytes.writeUInt32BE(Number(value), offset)
    }
  }
}

/** Entries of a table: each value with the flags, or nothing where it is 0. */
export function entries(values: readonly (number | bigint)[], flags = 0n): Buffer {
  const bytes = Buffer.alloc(values.length * 8)
  for (const [i, value] of values.entries()) {
    if (value !== 0 && value !== 0n) bytes.writeBigUInt64BE(BigInt(value) | flags, i * 8)
  }
  return bytes
}

/** An entry of the bitmap directory. */
export function bitmapEntry(
  name: string,
  tableOffset: number,
  tableSize: number,
  granularityBits: number,
  flags = 2,
): Buffer {
  const text = Buffer.from(name)
  const entry = Buffer.alloc(Math.ceil((24 + text.length) / 8) * 8)
  entry.writeBigUInt64BE(BigInt(tableOffset))
  entry.writeUInt32BE(tableSize, 8)
  entry.writeUInt32BE(flags, 12)
  entry[16] = 1
  entry[17] = granularityBits
  entry.writeUInt16BE(text.length, 18)
  text.copy(entry, 24)
  return entry
}

/** An entry of the table of snapshots. */
export function snapshotEntry(
  id: string,
  l1TableOffset: number | bigint,
  l1Size: number,
  { diskSize = 0, extraSize = 16 }: { diskSize?: number; extraSize?: number } = {},
): Buffer {
  const entry = Buffer.alloc(Math.ceil((56 + id.length * 2) / 8) * 8)
  entry.writeBigUInt64BE(BigInt(l1TableOffset))
  entry.writeUInt32BE(l1Size, 8)
  entry.writeUInt16BE(id.length, 12)
  entry.writeUInt16BE(id.length, 14)
  entry.writeUInt32BE(extraSize, 36)
  entry.writeBigUInt64BE(BigInt(diskSize), 48)
  entry.write(id + id, 56)
  return entry
}
