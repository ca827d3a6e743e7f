/**
 * Images of at most 1 MiB in all that claim far more than they hold: the work for them must be
 * bounded by their real size. Some are sound, so that edits of them succeed; others are not.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { deflateRawSync } from 'node:zlib'
import { bitmapEntry, entries, ImageBuilder, snapshotEntry } from './image-builder.ts'

const KIB = 1024
const MIB = 2 ** 20
const TIB = 2 ** 40
const COMPRESSED = 1n << 62n
const ZERO = 1n

/** The files of one case by their names; `disk.qcow2` is the topmost image. */
export type Files = Record<string, Buffer>

function one(image: ImageBuilder): Files {
  return { 'disk.qcow2': image.finish() }
}

/** A chain of images, the top first, each made by `make`. */
function chain(count: number, make: (index: number) => ImageBuilder): Files {
  const files: Files = {}
  for (let i = 0; i < count; i++) {
    const image = make(i)
    if (i < count - 1) image.backing(`below${i + 1}.qcow2`)
    files[i === 0 ? 'disk.qcow2' : `below${i}.qcow2`] = image.finish()
  }
  return files
}

/** A small image of 1 MiB without data. */
function small(clusterBits = 10, size = MIB): ImageBuilder {
  const image = new ImageBuilder(clusterBits, size, 4)
  const coverage = 2 ** (clusterBits * 2 - 3)
  return image.l1(new Array(Math.ceil(size / coverage)).fill(0))
}

/** An L2 table, 64 KiB clusters: of 8192 entries. */
function l2(entry: (index: number) => bigint, count = 8192): Buffer {
  return entries(Array.from({ length: count }, (_, i) => entry(i)))
}

/** One L1 table whose `count` entries name the given L2 tables in turn, clusters of 64 KiB. */
function sharedTables(count: number, tables: readonly Buffer[]): Files {
  return one(sharing(16, count, tables))
}

function sharing(clusterBits: number, count: number, tables: readonly Buffer[]): ImageBuilder {
  const image = new ImageBuilder(clusterBits, count * 2 ** (clusterBits * 2 - 3))
  const share = Math.ceil(count / tables.length)
  const offsets = tables.map((table) => image.put(table, share))
  return image.l1(Array.from({ length: count }, (_, i) => offsets[i % tables.length]))
}

/** Like `hostileImages`, over an image without data. */
function sharedTablesOver(clusterBits: number, count: number, table: Buffer): Files {
  const below = small(clusterBits).finish()
  return {
    'disk.qcow2': sharing(clusterBits, count, [table]).backing('below1.qcow2').finish(),
    'below1.qcow2': below,
  }
}

/** A bitmap whose table names one cluster of bits over and over. */
function sharedBits(bits: Buffer): Files {
  const count = 100_000
  const granularity = 9
  const image = new ImageBuilder(12, count * 4096 * 8 * 2 ** granularity)
  const coverage = 512 * 4096
  image.l1(new Array(0).fill(0))
  const l1 = Math.ceil((count * 4096 * 8 * 2 ** granularity) / coverage)
  image.set('l1Size', l1 > 4 * MIB ? 0 : l1)
  const cluster = image.put(bits, count)
  const table = image.put(entries(new Array(count).fill(cluster)))
  return one(image.bitmaps([bitmapEntry('b', table, count, granularity)]))
}

/** Every case by its name. */
export const HOSTILE_IMAGES: Readonly<Record<string, () => Files>> = {
  'a table of 65536 snapshots past the end of the file': () =>
    one(
      small()
        .set('nbSnapshots', 65536)
        .set('snapshotsOffset', 64 * KIB),
    ),

  'a snapshot whose L1 table has four billion entries': () =>
    one(small(9).snapshots([snapshotEntry('s', 512, 0xffffffff)])),

  'a snapshot whose L1 table of 32 MiB is past the end of the file': () =>
    one(small(9).snapshots([snapshotEntry('s', 2 ** 40, 4 * MIB)])),

  'two snapshots of which the first claims 2 GiB of extra data': () =>
    one(
      small(9).snapshots([
        snapshotEntry('s', 512, 1, { extraSize: 0x7fffff00 }),
        snapshotEntry('t', 512, 1),
      ]),
    ),

  'fifteen thousand snapshots that share an L1 table': () => {
    const image = small(12)
    const table = image.put(Buffer.alloc(64 * KIB))
    return one(
      image.snapshots(
        Array.from({ length: 14_000 }, (_, i) => snapshotEntry(String(i), table, 8192)),
      ),
    )
  },

  'a chain of 60 images with 65536 snapshots each': () =>
    chain(60, () =>
      small()
        .set('nbSnapshots', 65536)
        .set('snapshotsOffset', 64 * KIB),
    ),

  'a chain of 240 images with clusters of 2 MiB': () =>
    chain(240, () => {
      const size = 8 * TIB
      const image = new ImageBuilder(9, size, 4)
      return image
        .set('clusterBits', 21)
        .set('l1Size', 16)
        .set('l1TableOffset', 2 * MIB)
        .set('refcountTableOffset', 4 * MIB)
        .set('refcountTableClusters', 1)
    }),

  'a chain of 240 images of 8 PiB without data': () =>
    chain(240, () => {
      const image = new ImageBuilder(9, 2 ** 53 - 512, 4)
      return image
        .set('clusterBits', 21)
        .set('l1Size', 16384)
        .set('l1TableOffset', 2 * MIB)
        .set('refcountTableOffset', 4 * MIB)
        .set('refcountTableClusters', 1)
    }),

  'a chain of 100 images of which the lowest has many extents': () =>
    chain(100, (i) => {
      if (i < 99) return small(10, 32 * MIB)
      const image = new ImageBuilder(10, 32 * MIB, 4)
      const tables = Array.from({ length: 256 }, () => {
        return image.put(l2((n) => (n % 2 === 0 ? ZERO : 0n), 128))
      })
      return image.l1(tables, true)
    }),

  'a chain of 200 images that each claim a bitmap directory of 64 MiB': () =>
    chain(200, () => {
      const extension = Buffer.alloc(24)
      extension.writeUInt32BE(65535)
      extension.writeBigUInt64BE(BigInt(1024 * 65535), 8)
      extension.writeBigUInt64BE(512n, 16)
      return small(9, MIB).extension(0x23852875, extension).set('autoclearFeatures', 1)
    }),

  '20,000 bitmaps': () => {
    const image = small(16)
    const table = image.put(Buffer.alloc(8), 20_000)
    const directory = Array.from({ length: 20_000 }, (_, i) => {
      return bitmapEntry(`b${i}`, table, 1, 16)
    })
    return one(image.bitmaps(directory))
  },

  'a chain of four images with 7000 bitmaps each': () =>
    chain(4, () => {
      const image = small(12)
      const table = image.put(Buffer.alloc(8), 7000)
      return image.bitmaps(
        Array.from({ length: 7000 }, (_, i) => bitmapEntry(`b${i}`, table, 1, 16)),
      )
    }),

  'a bitmap that names one cluster of ones over and over': () =>
    sharedBits(Buffer.alloc(4096, 255)),
  'a bitmap that names one cluster of mixed bits over and over': () =>
    sharedBits(Buffer.alloc(4096, 0xaa)),

  'forty bitmaps that share one table of mixed bits': () => {
    const count = 8192
    const image = new ImageBuilder(12, 128 * 2 ** 30)
    image.l1(new Array(65536).fill(0))
    const cluster = image.put(Buffer.alloc(4096, 0xaa), count * 40)
    const table = image.put(entries(new Array(count).fill(cluster)), 40)
    return one(
      image.bitmaps(Array.from({ length: 40 }, (_, i) => bitmapEntry(`b${i}`, table, count, 9))),
    )
  },

  'one table of zeroes that 90,000 L1 entries share': () => sharedTables(90_000, [l2(() => ZERO)]),
  'one table, all of whose clusters are the same, that 90,000 L1 entries share': () =>
    sharedTables(90_000, [l2(() => 65536n)]),
  'two tables of zeroes that 90,000 L1 entries name in turn': () =>
    sharedTables(90_000, [l2(() => ZERO), l2(() => ZERO)]),
  'one table of zeroes that 60,000 L1 entries share, over a backing file': () =>
    sharedTablesOver(
      16,
      60_000,
      l2(() => ZERO),
    ),
  'one small table of zeroes that 65,000 L1 entries share, over a backing file': () =>
    sharedTablesOver(
      9,
      65_000,
      l2(() => ZERO, 64),
    ),
  'three tables that differ in their last entry, named 30,000 times in turn': () =>
    sharedTables(30_000, [
      l2((i) => (i < 8191 ? ZERO : 0n)),
      l2((i) => (i < 8190 ? ZERO : 0n)),
      l2((i) => (i < 8189 ? ZERO : 0n)),
    ]),
  'a table whose last entry differs, named 90,000 times': () =>
    sharedTables(90_000, [l2((i) => (i < 8191 ? ZERO : 0n))]),
  'a table of alternating entries, named 90,000 times': () =>
    sharedTables(90_000, [l2((i) => (i % 2 === 0 ? ZERO : 0n))]),

  'one cluster of data that 60,000 entries name': () => {
    const image = new ImageBuilder(16, 60_000 * 64 * KIB)
    const data = image.put(Buffer.alloc(64 * KIB, 7), 60_000)
    const tables = Array.from({ length: 8 }, () => image.put(l2(() => BigInt(data))))
    return one(image.l1(tables, true))
  },

  'one compressed cluster that 50,000 entries name': () => {
    const image = new ImageBuilder(16, 50_000 * 64 * KIB)
    const data = image.put(deflateRawSync(Buffer.alloc(64 * KIB, 7)), 50_000)
    const tables = Array.from({ length: 7 }, () => image.put(l2(() => COMPRESSED | BigInt(data))))
    return one(image.l1(tables, true))
  },

  'a full L1 table past the end of the file': () =>
    one(
      small(16)
        .set('l1Size', 4 * MIB)
        .set('l1TableOffset', 2 ** 50)
        .set('size', 2 ** 51),
    ),

  'a refcount table of 8 MiB past the end of the file': () =>
    one(
      small(9)
        .set('refcountTableOffset', 2 ** 50)
        .set('refcountTableClusters', 16384),
    ),

  'a refcount table that names one block over and over': () => {
    const image = small(9)
    const block = image.put(Buffer.alloc(512, 0x11))
    const table = image.put(entries(new Array(100_000).fill(block)))
    return one(
      image
        .set('refcountTableOffset', table)
        .set('refcountTableClusters', Math.ceil(800_000 / 512)),
    )
  },

  'a refcount table whose blocks lie a TiB behind the end of the file': () => {
    const image = small(9)
    const table = image.put(
      entries(Array.from({ length: 4096 }, (_, i) => TIB - 512 - i * 512 * 4096)),
    )
    return one(image.set('refcountTableOffset', table).set('refcountTableClusters', 64))
  },

  'L2 tables that lie a TiB behind the end of the file': () =>
    one(
      new ImageBuilder(9, 60_000 * 32 * KIB).l1(
        Array.from({ length: 60_000 }, (_, i) => TIB + i * 512),
      ),
    ),

  'clusters that lie a TiB behind the end of the file': () => {
    const image = new ImageBuilder(9, 1000 * 32 * KIB)
    const tables = Array.from({ length: 1000 }, (_, t) => {
      return image.put(l2((i) => BigInt(TIB + (t * 64 + i) * 512 * 300), 64))
    })
    return one(image.l1(tables, true))
  },

  'a hundred thousand header extensions': () => {
    const image = new ImageBuilder(20, MIB, 4)
    for (let i = 0; i < 100_000; i++) image.extension(0x12345678, Buffer.alloc(0))
    return { 'disk.qcow2': image.finish().subarray(0, MIB) }
  },

  'LUKS metadata that claims all there is': () => {
    const luks = Buffer.alloc(16)
    luks.writeBigUInt64BE(1024n)
    luks.writeBigUInt64BE(2n ** 62n, 8)
    return one(small(10).extension(0x0537be77, luks))
  },
}

/** Writes the files of a case into a new directory; the bytes that they are in all. */
export function writeHostile(directory: string, files: Files): number {
  mkdirSync(directory, { recursive: true })
  let bytes = 0
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(directory, name), content)
    bytes += content.length
  }
  return bytes
}
