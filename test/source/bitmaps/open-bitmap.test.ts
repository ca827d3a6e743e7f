import { join } from 'node:path'
import t, { type Test } from 'tap'
import { BITMAPS } from '../../../lib/format/qcow2/constants.ts'
import { openSource } from '../../../lib/source/open-source.ts'
import type { Source } from '../../../lib/source/source.ts'
import { peek64, poke } from '../../support/patch.ts'
import { qemuImg, qemuIo, run } from '../../support/qemu.ts'
import { startQemuNbd } from '../../support/qemu-nbd.ts'

const KIB = 1024
const AUTOCLEAR = 88

/** An image of 6 MiB with a bitmap `b0` of granules of 64 KiB, added before any write. */
function withBitmap(t: Test, ...options: string[]): string {
  const image = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', ...options, image, '6M')
  qemuImg('bitmap', '--add', '-g', '64k', image, 'b0')
  return image
}

/** Where the directory entry of the only bitmap is. */
function entryOf(image: string): number {
  for (let at = 104; at < 4096; at += 8) {
    if (peek64(image, at) === 0x2385287500000018n) return Number(peek64(image, at + 24))
  }
  throw new Error('no bitmaps extension')
}

/** Start and end of each dirty range, in KiB; mappings are contiguous to the end of the disk. */
async function dirtyRanges(t: Test, source: Source): Promise<[number, number][]> {
  const ranges: [number, number][] = []
  let at = 0
  for await (const batch of source.dirtyMappings()) {
    for (const { start, length, dirty } of batch) {
      t.equal(start, at)
      at += length
      if (!dirty) continue
      const last = ranges.at(-1)
      if (last?.[1] === start / KIB) last[1] = at / KIB
      else ranges.push([start / KIB, at / KIB])
    }
  }
  t.equal(at, source.size)
  return ranges
}

async function refused(t: Test, image: string, bitmap: string, code: string, why: string | RegExp) {
  await t.rejects(openSource(image, { bitmap }), { code, what: image, why })
  const source = await openSource(image)
  t.equal(source.bitmap, undefined, 'without the bitmap it opens')
  await source.close()
}

t.test('what was written, zeroed or discarded is dirty, by whole granules', async (t) => {
  const image = withBitmap(t)
  qemuIo(image, 'write -P 1 70k 4k', 'write -z 1M 64k', 'discard 2M 256k', 'write -P 2 6143k 1k')
  const source = await openSource(image, { bitmap: 'b0' })
  t.match(source.bitmap, { name: 'b0', granularity: 65536, notes: [] })
  t.strictSame(await dirtyRanges(t, source), [
    [64, 128],
    [1024, 1088],
    [2048, 2304],
    [6080, 6144],
  ])
  await source.close()
})

t.test('a bitmap over an external data file, raw or not, is read', async (t) => {
  for (const raw of ['off', 'on']) {
    const data = join(t.testdir(), 'disk.data')
    const image = withBitmap(t, '-o', `data_file=${data},data_file_raw=${raw}`)
    qemuIo(image, 'write -P 1 70k 4k', 'write -P 1 3M 1M')
    const source = await openSource(image, { bitmap: 'b0' })
    t.strictSame(await dirtyRanges(t, source), [
      [64, 128],
      [3072, 4096],
    ])
    await source.close()
  }
})

t.test('a granule larger than the disk is cut at its end', async (t) => {
  const image = withBitmap(t)
  qemuImg('bitmap', '--add', '-g', '2G', image, 'coarse')
  qemuIo(image, 'write -P 1 70k 4k')
  const source = await openSource(image, { bitmap: 'coarse' })
  t.strictSame(await dirtyRanges(t, source), [[0, 6144]])
  await source.close()
})

t.test('what a resize added is clean in a bitmap', async (t) => {
  const image = withBitmap(t)
  qemuIo(image, 'write -P 1 6080k 64k')
  qemuImg('resize', '-q', image, '9000k')
  const source = await openSource(image, { bitmap: 'b0' })
  t.strictSame(await dirtyRanges(t, source), [[6080, 6144]])
  await source.close()
})

t.test('a disabled bitmap is used, and that is noted', async (t) => {
  const image = withBitmap(t)
  qemuIo(image, 'write -P 1 0 64k')
  qemuImg('bitmap', '--disable', image, 'b0')
  qemuIo(image, 'write -P 1 1M 64k')
  const source = await openSource(image, { bitmap: 'b0' })
  t.strictSame(source.bitmap?.notes, [
    "bitmap 'b0' is disabled: writes made meanwhile are not recorded",
  ])
  t.strictSame(await dirtyRanges(t, source), [[0, 64]])
  await source.close()
})

t.test('a bitmap that an image lacks is refused, with those it has', async (t) => {
  const image = withBitmap(t)
  await refused(t, image, 'b1', 'BAD_BITMAP', "has no bitmap 'b1'; it has 'b0'")
  for (let i = 1; i < 13; i++) qemuImg('bitmap', '--add', image, `c${i}`)
  const why = /^has no bitmap 'b1'; it has 'b0', 'c1', .*, 'c9' and 3 more$/
  await refused(t, image, 'b1', 'BAD_BITMAP', why)
  const none = join(t.testdir(), 'none.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', none, '1M')
  await refused(t, none, 'b\n1', 'BAD_BITMAP', "has no bitmap 'b\\x0a1'; it has none")
})

t.test('a bitmap in use since a crash is refused', async (t) => {
  const image = withBitmap(t)
  run('qemu-io', ['-c', 'write -P 1 0 64k', '-c', 'abort', image])
  const why = /^bitmap 'b0' is inconsistent: a process .*; remove it, take a full backup and add/
  await refused(t, image, 'b0', 'BAD_BITMAP', why)
})

t.test('out of date since a write by a program that keeps none', async (t) => {
  const image = withBitmap(t)
  poke(image, AUTOCLEAR, peek64(image, AUTOCLEAR) & ~BITMAPS)
  const why = /^bitmap 'b0' is out of date: .*; take a full backup and add it again$/
  await refused(t, image, 'b0', 'BAD_BITMAP', why)
})

t.test('a bitmap of another size than the disk is refused', async (t) => {
  const image = withBitmap(t)
  poke(image, entryOf(image) + 8, 2)
  const why = /^bitmap 'b0' is of another size than the disk; remove it, take a full backup/
  await refused(t, image, 'b0', 'BAD_BITMAP', why)
})

t.test('images that hold no bitmaps are refused', async (t) => {
  const image = join(t.testdir(), 'disk')
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', image, '1M')
  await refused(t, image, 'b0', 'BAD_BITMAP', 'version 2 images hold no bitmaps')
  qemuImg('create', '-q', '-f', 'raw', image, '1M')
  await refused(t, image, 'b0', 'BAD_BITMAP', /^raw images hold no bitmaps/)
  const source = await openSource(image)
  t.throws(() => source.dirtyMappings(), { code: 'USAGE', what: 'bitmap' })
  await source.close()
})

t.test('30 MiB of bits are read in little memory', async (t) => {
  const image = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', image, '15T')
  qemuImg('bitmap', '--add', '-g', '64k', image, 'b0')
  qemuIo(image, ...Array.from({ length: 60 }, (_, i) => `write -P 1 ${i * 250}G 64k`))
  const source = await openSource(image, { bitmap: 'b0' })
  const before = process.memoryUsage().rss
  t.strictSame((await dirtyRanges(t, source)).length, 60)
  t.ok(process.memoryUsage().rss - before < 100 * 2 ** 20)
  await source.close()
})

t.test('in use by a process that has the image open, which is shared by force', async (t) => {
  const image = withBitmap(t)
  await startQemuNbd(t, image, { writable: true })
  const options = { bitmap: 'b0', forceShare: true }
  await t.rejects(openSource(image, options), {
    code: 'BAD_BITMAP',
    why: /^bitmap 'b0' is in use: another process has the image open for writing; stop it, or/,
    report: { valid: false },
  })
})
