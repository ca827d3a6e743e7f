/** Images that lie about themselves, given to the program. */
import { truncateSync } from 'node:fs'
import { join } from 'node:path'
import { deflateRawSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { makeRaw, noise, prose } from '../support/disks.ts'
import { full, refused } from '../support/hostile.ts'
import { peek, peek64, poke, sizeOf } from '../support/patch.ts'
import { qemuImg, qemuImgSame, qemuIo, run } from '../support/qemu.ts'

const MIB = 2 ** 20
const COMPRESSED = 1n << 62n

/** Where the first L2 table of an image is. */
function firstTable(image: string): number {
  return Number(peek64(image, Number(peek64(image, 40))) & 0x00fffffffffffe00n)
}

/** A directory with `disk.qcow2`, a sound image of 64 MiB with some data, and where its tables are. */
function sound(t: Test, ...options: string[]) {
  const cwd = t.testdir()
  const image = join(cwd, 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', ...options, image, '64M')
  qemuIo(image, 'write -P 6 0 256k')
  const l1 = Number(peek64(image, 40))
  return { cwd, image, l1, l2: firstTable(image) }
}

t.test('headers that claim what cannot be are refused in bounds', async (t) => {
  const cases: [string, (image: string) => void][] = [
    ['image is too big', (i) => poke(i, 24, 1n << 63n)],
    ['image is too big', (i) => poke(i, 24, (1n << 64n) - 512n)],
    ['L1 table is too small', (i) => poke(i, 24, 1n << 52n)],
    ['active L1 table reaches past the end of the file', (i) => poke(i, 36, (32 * MIB) / 8)],
    ['active L1 table too large', (i) => poke(i, 36, (32 * MIB) / 8 + 1)],
    ['active L1 table offset invalid', (i) => poke(i, 40, 0x30200n)],
    ['active L1 table reaches past the end of the file', (i) => poke(i, 40, 1n << 52n)],
    ['refcount table too large', (i) => poke(i, 56, 0x7fffffff)],
    ['snapshot table too large', (i) => poke(i, 60, 0x7fffffff)],
    ['unsupported cluster size 2^31', (i) => poke(i, 20, 31)],
    ['unsupported cluster size 2^4294967295', (i) => poke(i, 20, 0xffffffff)],
    [
      "the header's length of 4294967295 bytes exceeds the cluster size",
      (i) => poke(i, 100, 0xffffffff),
    ],
    ['unsupported qcow2 version 4', (i) => poke(i, 4, 4)],
    ['encrypted with AES', (i) => poke(i, 32, 1)],
  ]
  for (const [why, change] of cases) {
    const { cwd, image } = sound(t)
    // A file as large as what is claimed would fit in.
    truncateSync(image, 16 * MIB)
    change(image)
    await refused(t, cwd, `disk.qcow2: ${why}`, why)
  }
})

t.test('a feature name with escape codes is printed escaped', async (t) => {
  const { cwd, image } = sound(t)
  const names = 112
  t.equal(peek(image, names, 4).readUInt32BE(), 0x6803f857, 'the table of feature names')
  poke(image, names + 8, Buffer.from('\0\x07\x1b[2J\nname\u202e'.padEnd(48, '\0')))
  poke(image, 72, 1n << 7n)
  await refused(t, cwd, /disk\.qcow2: unsupported qcow2 features: '\\x1b\[2J\\x0aname\S*'/)
})

t.test('table entries that point at metadata or past the end are refused', async (t) => {
  const cases: [string, (s: ReturnType<typeof sound>) => void][] = [
    [
      'L2 table at 0x40000000000000 is past the end of the file',
      (s) => poke(s.image, s.l1, 1n << 54n),
    ],
    ['L2 table at 0x30000 lies over the L1 table', (s) => poke(s.image, s.l1, BigInt(s.l1))],
    ['L2 table at 0x10000 lies over the refcount table', (s) => poke(s.image, s.l1, 0x10000n)],
    [
      'data cluster at 0x80000000000000 is past the end of the file',
      (s) => poke(s.image, s.l2, 1n << 55n),
    ],
    ['data cluster at 0x30000 lies over the L1 table', (s) => poke(s.image, s.l2, BigInt(s.l1))],
    ['cluster offset 0x50200 is unaligned', (s) => poke(s.image, s.l2, 0x50200n)],
    [
      'compressed cluster at 0xffffffffffff is past the end of the file',
      (s) => poke(s.image, s.l2, (1n << 62n) | 0xffffffffffffn),
    ],
  ]
  for (const [why, change] of cases) {
    const made = sound(t)
    change(made)
    await refused(t, made.cwd, `disk.qcow2: guest offset 0x0: ${why}`, why)
  }
})

t.test('a table of which each entry is the same cluster: read as it says', async (t) => {
  const { cwd, image, l2 } = sound(t)
  const entry = peek(image, l2, 8)
  for (let i = 0; i < 1024; i++) poke(image, l2 + 8 * i, entry)
  await full(t, cwd, 0, 'all of 64 MiB')
  const copy = { path: join(cwd, 'copy.qcow2'), format: 'qcow2' }
  t.ok(qemuImgSame(copy, { path: image, format: 'qcow2' }))
})

t.test('L2 tables that are data, and data that is L2 tables', async (t) => {
  const { cwd, image, l1, l2 } = sound(t)
  // QEMU reads both, so there is a right answer.
  poke(image, l2, BigInt(l2) | (1n << 63n))
  await full(t, cwd, 0, 'a table as data')
  const copy = { path: join(cwd, 'copy.qcow2'), format: 'qcow2' }
  t.ok(qemuImgSame(copy, { path: image, format: 'qcow2' }))
  poke(image, l1, BigInt(l2 + 2 * 65536))
  await refused(t, cwd, /disk\.qcow2: guest offset 0x0: .*/, 'data as a table')
})

/** Where the stream of a compressed cluster lies, whose neighbour follows it in the file. */
function streamOf(image: string, cluster: number): { at: number; size: number } {
  const bits = peek(image, 20, 4).readUInt32BE()
  const offsetOf = (index: number) => {
    const entry = peek64(image, firstTable(image) + index * 8)
    if ((entry & COMPRESSED) === 0n) throw new Error(`${image}: ${index} is not compressed`)
    return Number(entry & ((1n << BigInt(62 - (bits - 8))) - 1n))
  }
  const at = offsetOf(cluster)
  return { at, size: offsetOf(cluster + 1) - at }
}

/** The entry of a compressed cluster. */
function compressedEntry(clusterBits: number, at: number, size: number): bigint {
  const sectors = BigInt(Math.floor((at + size - 1) / 512) - Math.floor(at / 512))
  return COMPRESSED | (sectors << BigInt(62 - (clusterBits - 8))) | BigInt(at)
}

/** A directory with a compressed `disk.qcow2` of clusters of a size. */
function compressed(t: Test, type: string, clusterSize: number, name = 'disk.qcow2'): string {
  const disk = makeRaw(join(t.testdirName, 'disk.raw'), 4 * MIB, [{ at: 0, bytes: prose(4 * MIB) }])
  const image = join(t.testdirName, name)
  const options = `compression_type=${type},cluster_size=${clusterSize}`
  qemuImg('convert', '-f', 'raw', '-O', 'qcow2', '-c', '-o', options, disk, image)
  return image
}

for (const type of ['zlib', 'zstd']) {
  t.test(`clusters that expand wrongly, ${type}`, async (t) => {
    const cwd = t.testdir()
    const whole = compressed(t, type, 65536)
    const { at, size } = streamOf(whole, 1)
    const line = `disk.qcow2: the compressed cluster at offset ${at} is damaged`
    const damage = (bytes: Buffer) => {
      poke(whole, at, Buffer.alloc(size))
      poke(whole, at, bytes.subarray(0, size))
    }
    const sameAsQemu = async (name: string) => {
      await full(t, cwd, 0, name)
      const copy = { path: join(cwd, 'copy.qcow2'), format: 'qcow2' }
      t.ok(qemuImgSame(copy, { path: whole, format: 'qcow2' }), name)
    }
    await sameAsQemu('sound')

    const stream = peek(whole, at, size)
    damage(noise(size))
    await refused(t, cwd, line, 'garbage')
    damage(Buffer.alloc(0))
    await refused(t, cwd, line, 'zeroes')
    damage(Buffer.alloc(size, 0xff))
    await refused(t, cwd, line, 'ones')
    // What follows may be taken for its other half.
    damage(stream.subarray(0, size / 2))
    const { status } = run('qemu-img', ['convert', '-O', 'raw', whole, join(cwd, 'judge.raw')])
    if (status === 0) await sameAsQemu('half a stream')
    else await refused(t, cwd, line, 'half a stream')

    // Sound streams, but of clusters of another size.
    const small = compressed(t, type, 32768, 'small.qcow2')
    const short = streamOf(small, 1)
    damage(peek(small, short.at, short.size))
    await refused(t, cwd, line, 'too short')
    const large = compressed(t, type, 131072, 'large.qcow2')
    const long = streamOf(large, 1)
    // At the end of the file there is room for it.
    const end = Math.ceil(sizeOf(whole) / 65536) * 65536
    truncateSync(whole, end + 65536)
    poke(whole, end, peek(large, long.at, long.size))
    poke(whole, firstTable(whole) + 8, compressedEntry(16, end, long.size))
    if (type === 'zlib') {
      // QEMU takes what it needs of such a stream.
      await sameAsQemu('too long')
    } else {
      await refused(
        t,
        cwd,
        `disk.qcow2: the compressed cluster at offset ${end} is damaged`,
        'too long',
      )
    }
  })
}

t.test('a stream that would expand to 256 MiB expands to a cluster', async (t) => {
  const cwd = t.testdir()
  const image = compressed(t, 'zlib', 2 * MIB)
  const bomb = deflateRawSync(Buffer.alloc(256 * MIB, 'x'), { level: 9 })
  const end = Math.ceil(sizeOf(image) / (2 * MIB)) * 2 * MIB
  truncateSync(image, end + 2 * MIB)
  poke(image, end, bomb)
  const entry = compressedEntry(21, end, bomb.length)
  for (let i = 0; i < 2; i++) poke(image, firstTable(image) + 8 * i, entry)
  await full(t, cwd, 0, 'expands as far as a cluster')
  const copy = { path: join(cwd, 'copy.qcow2'), format: 'qcow2' }
  t.ok(qemuImgSame(copy, { path: image, format: 'qcow2' }))
})
