/** Images that lie. Each is refused or read, quickly and in little memory. */
import { copyFileSync, linkSync, rmSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { openSource } from '../../lib/source/open-source.ts'
import type { Mapping } from '../../lib/source/source.ts'
import { isInTime, MEMORY } from '../support/bounds.ts'
import { peek64, poke, sizeOf } from '../support/patch.ts'
import { qemuImg, qemuIo } from '../support/qemu.ts'

const CLUSTER = 65536n

/** A sound image of 1 GiB with some data, and where its tables are. */
function sound(t: Test, ...options: string[]) {
  const image = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', ...options, image, '1G')
  qemuIo(image, 'write -P 1 0 128k', 'write -P 2 600M 64k')
  const l1 = Number(peek64(image, 40))
  const l2 = Number(peek64(image, l1) & 0x00fffffffffffe00n)
  return { image, l1, l2, refcounts: peek64(image, 48) }
}

/** Opens an image and reads its map, or the first mappings of it; how it ended, if badly. */
async function readMap(image: string, most = Number.POSITIVE_INFINITY): Promise<Mapping[]> {
  const source = await openSource(image)
  try {
    const mappings: Mapping[] = []
    for await (const batch of source.mappings()) {
      if (mappings.length < 1e5) mappings.push(...batch)
      most -= batch.length
      if (most <= 0) break
    }
    return mappings
  } finally {
    await source.close()
  }
}

/** Runs `read`, which has to end in time and in bounds. */
async function bounded<T>(t: Test, read: () => Promise<T>): Promise<T | Error> {
  const before = process.cpuUsage()
  const outcome = await read().catch((error: Error) => error)
  const { user, system } = process.cpuUsage(before)
  const seconds = (user + system) / 1e6
  t.ok(isInTime(seconds), `ends in time (${seconds.toFixed(2)} s)`)
  const { rss } = process.memoryUsage()
  t.ok(rss < MEMORY * 1024, `in bounded memory (${Math.round(rss / 2 ** 20)} MiB)`)
  return outcome
}

async function refused(t: Test, image: string, code: string, why: string): Promise<void> {
  const outcome = await bounded(t, () => readMap(image))
  t.match(outcome, { code, what: image, why })
}

t.test('images with lying headers are refused in bounds', async (t) => {
  const cases: [string, string, (image: string) => void][] = [
    ['image is too big', 'BAD_IMAGE', (i) => poke(i, 24, 1n << 63n)],
    ['L1 table is too small', 'BAD_IMAGE', (i) => poke(i, 24, 1n << 52n)],
    ['active L1 table too large', 'BAD_IMAGE', (i) => poke(i, 36, 0xffffffff)],
    ['active L1 table reaches past the end of the file', 'BAD_IMAGE', (i) => poke(i, 36, 4194304)],
    [
      'active L1 table reaches past the end of the file',
      'BAD_IMAGE',
      (i) => poke(i, 40, 1n << 40n),
    ],
    ['refcount table too large', 'BAD_IMAGE', (i) => poke(i, 56, 0xffffffff)],
    ['snapshot table too large', 'BAD_IMAGE', (i) => poke(i, 60, 0xffffffff)],
    ['a header extension is too large', 'BAD_IMAGE', (i) => poke(i, 116, 0xfffffff8)],
    [
      'the backing file name of 4294967295 bytes is too long',
      'BAD_IMAGE',
      (i) => {
        poke(i, 8, 4096n)
        poke(i, 16, 0xffffffff)
      },
    ],
    ['encrypted with AES', 'UNSUPPORTED', (i) => poke(i, 32, 1)],
    [
      'unsupported qcow2 features: incompatible feature bit 7',
      'UNSUPPORTED',
      (i) => poke(i, 72, 128n),
    ],
    ["the header's length of 0 bytes is too short", 'BAD_IMAGE', (i) => truncateSync(i, 80)],
  ]
  for (const [why, code, change] of cases) {
    await t.test(why, async (t) => {
      const { image } = sound(t)
      change(image)
      truncateSync(image, Math.min(sizeOf(image), 16 * 2 ** 20))
      await refused(t, image, code, why)
    })
  }
})

t.test('an image encrypted with LUKS is refused', async (t) => {
  const { image } = sound(t)
  // As QEMU makes it, but for the key, for which it would measure how fast the machine is.
  const end = sizeOf(image)
  truncateSync(image, end + Number(CLUSTER))
  poke(image, 32, 2)
  const extension = Buffer.alloc(32)
  extension.writeUInt32BE(0x0537be77, 0)
  extension.writeUInt32BE(16, 4)
  extension.writeBigUInt64BE(BigInt(end), 8)
  extension.writeBigUInt64BE(CLUSTER, 16)
  poke(image, 112, extension)
  await refused(t, image, 'UNSUPPORTED', 'encrypted with LUKS')
})

t.test('lying tables are refused or read in bounds', async (t) => {
  type Sound = ReturnType<typeof sound>
  const cases: [string, (s: Sound) => void][] = [
    ['guest offset 0x0: L2 table at 0x10200 is unaligned', (s) => poke(s.image, s.l1, 0x10200n)],
    [
      'guest offset 0x20000000: L2 table at 0x40000000000000 is past the end of the file',
      (s) => poke(s.image, s.l1 + 8, 1n << 54n),
    ],
    [
      'guest offset 0x0: L2 table at 0x30000 lies over the L1 table',
      (s) => poke(s.image, s.l1, BigInt(s.l1)),
    ],
    [
      'guest offset 0x0: L2 table at 0x10000 lies over the refcount table',
      (s) => poke(s.image, s.l1, s.refcounts),
    ],
    [
      'guest offset 0x10000: cluster offset 0x50200 is unaligned',
      (s) => poke(s.image, s.l2 + 8, 0x50200n),
    ],
    [
      'guest offset 0x20000: data cluster at 0x80000000000000 is past the end of the file',
      (s) => poke(s.image, s.l2 + 16, 1n << 55n),
    ],
    [
      'guest offset 0x20000: data cluster at 0x30000 lies over the L1 table',
      (s) => poke(s.image, s.l2 + 16, BigInt(s.l1)),
    ],
    [
      'guest offset 0x20000: data cluster at 0x10000 lies over the refcount table',
      (s) => poke(s.image, s.l2 + 16, s.refcounts),
    ],
    [
      'guest offset 0x20000: compressed cluster at 0xffffffffffff is past the end of the file',
      (s) => poke(s.image, s.l2 + 16, (1n << 62n) | 0xffffffffffffn),
    ],
    [
      'guest offset 0x20000: compressed cluster at 0x10 lies over the header',
      (s) => poke(s.image, s.l2 + 16, (1n << 62n) | 16n),
    ],
  ]
  for (const [why, change] of cases) {
    await t.test(why, async (t) => {
      const image = sound(t)
      change(image)
      await refused(t, image.image, 'BAD_IMAGE', why)
    })
  }
})

t.test('version 2 knows no zero clusters', async (t) => {
  const { image, l2 } = sound(t, '-o', 'compat=0.10')
  poke(image, l2 + 16, 1n)
  await refused(t, image, 'BAD_IMAGE', 'guest offset 0x20000: zero cluster in a version 2 image')
})

t.test('an invalid subcluster bitmap is refused', async (t) => {
  const { image, l2 } = sound(t, '-o', 'extended_l2=on')
  poke(image, l2 + 8, (1n << 32n) | 1n)
  await refused(t, image, 'BAD_IMAGE', 'guest offset 0x0: invalid subcluster bitmap')
})

t.test('truncated images are refused, or read as QEMU reads them', async (t) => {
  const { image } = sound(t)
  const copy = `${image}.cut`
  const size = sizeOf(image)
  for (let cut = size - 512; cut > 0; cut -= 16384) {
    copyFileSync(image, copy)
    truncateSync(copy, cut)
    const outcome = await readMap(copy).catch((error) => error)
    // What lacks less than one cluster is as QEMU leaves files behind.
    if (cut > size - 65536) t.ok(Array.isArray(outcome))
    else t.match(outcome, { code: 'BAD_IMAGE' }, `cut to ${cut} bytes`)
  }
})

t.test('16 MiB that claim the largest L1 table, all of it one L2 table', async (t) => {
  const { image, l1, l2 } = sound(t)
  // The L1 table reaches over what follows, which a sparse file can afford.
  truncateSync(image, l1 + 4194304 * 8)
  poke(image, 36, 4194304)
  poke(image, 24, 1n << 51n)
  const entries = Buffer.alloc(8 * 2 ** 20)
  for (let i = 0; i < entries.length; i += 8) entries.writeBigUInt64BE(BigInt(l2), i)
  poke(image, l1, entries)
  // The tables lie over each other now, which is found at the first entry.
  await refused(
    t,
    image,
    'BAD_IMAGE',
    `guest offset 0x0: L2 table at 0x${l2.toString(16)} lies over the L1 table`,
  )
  const far = BigInt(l1 + 4194304 * 8)
  truncateSync(image, Number(far + 2n * CLUSTER))
  const table = Buffer.alloc(65536)
  for (let i = 0; i < 8192; i += 2) table.writeBigUInt64BE(far + CLUSTER, i * 8)
  poke(image, Number(far), table)
  for (let i = 0; i < entries.length; i += 8) entries.writeBigUInt64BE(far, i)
  poke(image, l1, entries)
  // A pebibyte of data that is one cluster, read 2^34 times: no guest writes that.
  const error = await bounded(t, () => readMap(image, 3e5).catch((e) => e))
  t.match(error, { code: 'BAD_IMAGE', why: /refers to the same clusters over and over/ })
})

t.test('2 MiB of header extensions are refused in bounds', async (t) => {
  const image = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=2M', image, '1G')
  poke(image, 112, Buffer.alloc(2 ** 21 - 112, '0000000100000000', 'hex'))
  await refused(t, image, 'BAD_IMAGE', 'more than 1024 header extensions')
})

t.test('a data file that is the image itself is refused', async (t) => {
  const dir = t.testdir()
  const image = join(dir, 'disk.qcow2')
  const data = join(dir, 'data')
  qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${data}`, image, '1M')
  copyFileSync(image, data)
  const source = await openSource(image)
  await source.close()
  rmSync(data)
  linkSync(image, data)
  await refused(t, image, 'BAD_IMAGE', 'its data file is the image itself')
})
