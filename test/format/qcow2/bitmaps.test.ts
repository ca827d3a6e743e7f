import { open } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { decodeBitmapDirectory, readBitmaps } from '../../../lib/format/qcow2/bitmaps.ts'
import { readHeader } from '../../../lib/format/qcow2/qcow2-image.ts'
import { peek64, poke, sizeOf } from '../../support/patch.ts'
import { qemuImg } from '../../support/qemu.ts'

/** Opens an image and reads its bitmaps. */
async function bitmapsOf(path: string) {
  const handle = await open(path)
  try {
    const file = { path, handle, size: sizeOf(path) }
    return await readBitmaps(file, await readHeader(file))
  } finally {
    await handle.close()
  }
}

t.test('bitmaps that QEMU made are read as it lists them', async (t) => {
  const image = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', image, '1G')
  t.strictSame(await bitmapsOf(image), [])
  qemuImg('bitmap', '--add', '-g', '512', image, 'fine')
  qemuImg('bitmap', '--add', '-g', '2G', '--disable', image, 'grosso modo, naïf')
  t.match(await bitmapsOf(image), [
    { name: 'fine', granularityBits: 9, inUse: false, auto: true, tableSize: 64 },
    {
      ...{ name: 'grosso modo, naïf', granularityBits: 31, inUse: false, auto: false },
      tableSize: 1,
    },
  ])
})

t.test('more bitmaps than a cluster has room for are read', async (t) => {
  const image = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=512', image, '1M')
  const names = Array.from({ length: 30 }, (_, i) => `bitmap-${i}-${'x'.repeat(i)}`)
  for (const name of names) qemuImg('bitmap', '--add', image, name)
  const found = await bitmapsOf(image)
  t.strictSame(
    found.map(({ name }) => name),
    names,
  )
})

interface Fields {
  tableOffset?: bigint
  tableSize?: number
  flags?: number
  type?: number
  granularityBits?: number
  nameSize?: number
  extraDataSize?: number
  name?: string
}

/** A directory entry; sound but for the fields given. */
function entry(fields: Fields = {}): Buffer {
  const { name = 'b0' } = fields
  const extra = fields.extraDataSize ?? 0
  const bytes = Buffer.alloc(
    Math.ceil((24 + Math.min(extra, 64) + Buffer.byteLength(name)) / 8) * 8,
  )
  bytes.writeBigUInt64BE(fields.tableOffset ?? 0x50000n, 0)
  bytes.writeUInt32BE(fields.tableSize ?? 1, 8)
  bytes.writeUInt32BE(fields.flags ?? 2, 12)
  bytes[16] = fields.type ?? 1
  bytes[17] = fields.granularityBits ?? 16
  bytes.writeUInt16BE(fields.nameSize ?? Buffer.byteLength(name), 18)
  bytes.writeUInt32BE(extra, 20)
  bytes.write(name, 24 + Math.min(extra, 64))
  return bytes
}

function decode(entries: Buffer[], count = entries.length) {
  const header = { clusterSize: 65536, virtualSize: 2 ** 30, autoclearFeatures: 1n }
  return decodeBitmapDirectory(Buffer.concat(entries), { count }, header)
}

t.test('a directory that QEMU accepts is accepted', async (t) => {
  t.match(
    decode([entry(), entry({ name: '', flags: 1 }), entry({ name: 'long enough to be padded' })]),
    [
      { name: 'b0', auto: true, inUse: false },
      { name: '', auto: false, inUse: true },
      { name: 'long enough to be padded' },
    ],
  )
  t.match(decode([entry({ name: 'x'.repeat(1023), tableSize: 8192 })]), [{ tableSize: 8192 }])
  t.strictSame(decode([]), [])
})

t.test('directory entries that cannot be true are refused', async (t) => {
  const cases: [string, Fields][] = [
    ["bitmap 'b0': its table is empty", { tableSize: 0 }],
    ["bitmap 'b0': its table is too large", { tableSize: 8193 }],
    ["bitmap 'b0': its table is too large", { tableSize: 0xffffffff }],
    ["bitmap 'b0': table offset invalid", { tableOffset: 0n }],
    ["bitmap 'b0': table offset invalid", { tableOffset: 0x50200n }],
    ["bitmap 'b0': table offset invalid", { tableOffset: 2n ** 64n - 65536n }],
    ["bitmap 'b0': its table is too small for the disk", { granularityBits: 9, tableSize: 3 }],
    ["bitmap 'b0': a granularity of 2^8 bytes", { granularityBits: 8 }],
    ["bitmap 'b0': a granularity of 2^32 bytes", { granularityBits: 32 }],
    ["bitmap 'b0': unknown flags 0xa", { flags: 10 }],
    ["bitmap 'b0': unknown flags 0x80000000", { flags: 0x80000000 }],
    ['the name of a bitmap is too long', { name: 'x'.repeat(1024) }],
    ['the bitmap directory ends inside an entry', { nameSize: 20 }],
    ['the bitmap directory ends inside an entry', { extraDataSize: 0xffffffff }],
  ]
  for (const [why, fields] of cases) {
    t.throws(() => decode([entry(fields)]), {
      name: 'FormatError',
      code: 'BAD_IMAGE',
      message: why,
    })
  }
  const extra = { code: 'UNSUPPORTED', message: "bitmap 'b0' has extra data" }
  t.throws(() => decode([entry({ extraDataSize: 8 })]), extra)
  t.throws(() => decode([entry({ flags: 4 })]), extra)
  const type = { code: 'UNSUPPORTED', message: "bitmap 'b0' is of unknown type 2" }
  t.throws(() => decode([entry({ type: 2 })]), type)
})

t.test('directories that cannot be true are refused', async (t) => {
  const bad = (why: string) => ({ name: 'FormatError', code: 'BAD_IMAGE', message: why })
  t.throws(() => decode([entry()], 2), bad('has 1 bitmaps, where its header says 2'))
  t.throws(
    () => decode([entry(), entry({ name: 'b1' })], 1),
    bad('has more bitmaps than the 1 that its header says'),
  )
  t.throws(() => decode([entry(), entry()]), bad("has two bitmaps 'b0'"))
  const cut = bad('the bitmap directory ends inside an entry')
  t.throws(() => decode([entry(), Buffer.alloc(8)]), cut)
  t.throws(() => decode([entry({ name: 'a name' }).subarray(0, 24)]), cut)
})

/** Where the bitmaps extension of a fresh image is, from its type on. */
function extensionAt(t: Test, image: string): number {
  for (let at = 112; at < 4096; at += 8) {
    if (peek64(image, at) === 0x2385287500000018n) return at
  }
  t.fail('no bitmaps extension')
  return 0
}

t.test('a directory that is not where the header says', async (t) => {
  const image = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', image, '1M')
  qemuImg('bitmap', '--add', image, 'b0')
  const at = extensionAt(t, image)
  const cases: [bigint, bigint, string][] = [
    [1n << 40n, 32n, 'the bitmap directory is outside the file'],
    [0n, 32n, 'the bitmap directory ends inside an entry'],
    [peek64(image, at + 24), 60n * 2n ** 20n, 'has more bitmaps than the 1 that its header says'],
    [peek64(image, at + 24), 0n, 'bitmap directory size is zero'],
  ]
  for (const [offset, size, why] of cases) {
    poke(image, at + 16, size)
    poke(image, at + 24, offset)
    await t.rejects(bitmapsOf(image), { code: 'BAD_IMAGE', what: image, why })
  }
})
