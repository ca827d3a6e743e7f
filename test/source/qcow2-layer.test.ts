import { readFileSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type OpenOptions, openSource } from '../../lib/source/open-source.ts'
import { peek, peek64, poke, sizeOf } from '../support/patch.ts'
import { type MapEntry, qemuImg, qemuImgInfo, qemuImgMap, qemuIo } from '../support/qemu.ts'
import { contentOf, extentsOf, mappingsOf } from '../support/read-source.ts'

/** What must be equal between our extents and QEMU's map: zero, and stored somewhere at all. */
function comparable(entries: { start: number; length: number; zero: boolean; stored: boolean }[]) {
  const out: typeof entries = []
  for (const { start, length, zero, stored } of entries) {
    const last = out.at(-1)
    if (last && last.zero === zero && last.stored === stored) last.length += length
    else out.push({ start, length, zero, stored })
  }
  return out
}

/**
 * Whether any image of the chain holds a run. QEMU says so by `present`, but for a raw image,
 * which is present everywhere; there `data` tells.
 */
function stored(entry: MapEntry, rawDepth: number): boolean {
  return entry.present && (entry.depth !== rawDepth || entry.data)
}

/** Opens an image and holds its extents and its content against QEMU's. */
async function sameAsQemu(
  t: Test,
  image: string,
  {
    rawDepth = -1,
    content = true,
    ...options
  }: OpenOptions & { rawDepth?: number; content?: boolean } = {},
): Promise<void> {
  const source = await openSource(image, options)
  try {
    t.equal(source.size, qemuImgInfo(image)['virtual-size'], 'size')
    const ours = (await extentsOf(source)).map((e) => ({ ...e, stored: !e.hole }))
    const theirs = qemuImgMap(image).map((e) => ({ ...e, stored: stored(e, rawDepth) }))
    t.same(comparable(ours), comparable(theirs), 'extents')
    if (content) {
      const raw = `${image}.raw`
      qemuImg('convert', '-f', 'qcow2', '-O', 'raw', image, raw)
      t.ok((await contentOf(source)).equals(readFileSync(raw)), 'content')
    }
    await source.checkUnchanged()
  } finally {
    await source.close()
  }
}

/** Data, both kinds of zero clusters, discarded ones, and a run over several clusters. */
const MIXED = [
  'write -P 1 0 64k',
  'write -P 2 200k 300k',
  'write -P 3 4M 1000k',
  'write -z 1M 128k',
  'write -P 4 2M 256k',
  'write -z 2M 128k',
  'write -P 5 3M 64k',
  'write -z -u 3M 64k',
  'write -P 6 6143k 1k',
]

t.test('every cluster size and version, with and without extended L2 entries', async (t) => {
  const cases = [
    ['cluster_size=512'],
    ['cluster_size=4k'],
    ['cluster_size=64k'],
    ['cluster_size=2M'],
    ['compat=0.10,cluster_size=512'],
    ['compat=0.10,cluster_size=64k'],
    ['cluster_size=16k,extended_l2=on'],
    ['cluster_size=128k,extended_l2=on'],
    ['cluster_size=2M,extended_l2=on'],
    ['refcount_bits=1,cluster_size=64k'],
    ['preallocation=falloc,cluster_size=64k'],
    ['preallocation=metadata,cluster_size=64k'],
    ['preallocation=metadata,cluster_size=4k'],
  ]
  for (const [options] of cases) {
    await t.test(options, async (t) => {
      const image = join(t.testdir(), 'disk.qcow2')
      qemuImg('create', '-q', '-f', 'qcow2', '-o', options, image, '6M')
      await sameAsQemu(t, image)
      const v2 = options.includes('0.10')
      qemuIo(image, ...MIXED.filter((command) => !v2 || !command.startsWith('write -z')))
      await sameAsQemu(t, image)
    })
  }
})

t.test('single subclusters of all kinds are mapped as QEMU maps them', async (t) => {
  const dir = t.testdir()
  const base = join(dir, 'base.qcow2')
  const image = join(dir, 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', base, '4M')
  qemuIo(base, 'write -P 9 0 4M')
  const options = ['-o', 'extended_l2=on,cluster_size=64k', '-b', base, '-F', 'qcow2']
  qemuImg('create', '-q', '-f', 'qcow2', ...options, image)
  const commands = Array.from({ length: 200 }, (_, i) => {
    const at = `${(i * 37) % 2000}k`
    return i % 3 === 0 ? `write -z ${at} 2k` : `write -P ${(i % 200) + 1} ${at} 2k`
  })
  qemuIo(image, ...commands, 'write -z 3M 64k', 'discard 3136k 64k')
  await sameAsQemu(t, image)
})

t.test('compressed clusters are mapped and expand', async (t) => {
  for (const cluster of ['512', '4k', '64k', '2M']) {
    const dir = t.testdir()
    const raw = join(dir, 'disk.raw')
    const image = join(dir, 'disk.qcow2')
    qemuImg('create', '-q', '-f', 'raw', raw, '6M')
    qemuIo({ path: raw, format: 'raw' }, 'write -P 1 0 3M', 'write -P 2 4M 100k')
    const convert = ['convert', '-q', '-c', '-f', 'raw', '-O', 'qcow2', '-o']
    qemuImg(...convert, `cluster_size=${cluster}`, raw, image)
    qemuIo(image, 'write -P 7 1M 64k')
    await sameAsQemu(t, image)
    qemuImg(...convert, `cluster_size=${cluster},compression_type=zstd`, raw, image)
    await sameAsQemu(t, image, { content: false })
    const source = await openSource(image)
    const mappings = await mappingsOf(source)
    const clusterSize = qemuImgInfo(image)['cluster-size'] as number
    const streams = mappings.flatMap((mapping) => (mapping.kind === 'zstd' ? [mapping] : []))
    t.ok(streams.length > 0)
    const size = sizeOf(image)
    t.ok(streams.every((s) => s.clusterSize === clusterSize && s.within === 0))
    t.ok(streams.every((s) => s.offset + s.size <= size))
    const first = streams.slice(0, 50).map((s) => peek(image, s.offset, 4).readUInt32LE())
    t.same(new Set(first), new Set([0xfd2fb528]), 'a zstd frame starts there')
    await source.close()
  }
})

t.test('a part of a compressed cluster shows through an overlay of smaller clusters', async (t) => {
  const dir = t.testdir()
  const [raw, base, top] = ['raw', 'base', 'top'].map((name) => join(dir, name))
  qemuImg('create', '-q', '-f', 'raw', raw, '1M')
  qemuIo({ path: raw, format: 'raw' }, 'write -P 1 0 512k', 'write -P 2 100k 100k')
  qemuImg('convert', '-c', '-f', 'raw', '-O', 'qcow2', raw, base)
  const options = ['-o', 'cluster_size=4k', '-b', base, '-F', 'qcow2']
  qemuImg('create', '-q', '-f', 'qcow2', ...options, top)
  qemuIo(top, 'write -P 3 8k 4k', 'write -z 128k 4k', 'write -P 3 200k 8k')
  await sameAsQemu(t, top)
  const source = await openSource(top)
  const within = (await mappingsOf(source)).flatMap((p) => (p.kind === 'deflate' ? [p.within] : []))
  t.same(within.slice(0, 3), [0, 12288, 0])
  await source.close()
})

t.test('chains are mapped as QEMU maps them', async (t) => {
  const dir = t.testdir()
  const at = (name: string) => join(dir, name)
  const overlay = (name: string, base: string, format: string, ...more: string[]) =>
    qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', format, at(name), ...more)

  qemuImg('create', '-q', '-f', 'raw', at('base.raw'), '3M')
  qemuIo({ path: at('base.raw'), format: 'raw' }, 'write -P 1 0 1M', 'write -P 1 2900k 172k')
  overlay('mid.qcow2', 'base.raw', 'raw', '-o', 'cluster_size=4k', '5M')
  qemuIo(at('mid.qcow2'), 'write -P 2 512k 64k', 'write -z 600k 8k', 'write -P 2 4M 300k')
  await t.test('over a shorter raw file', (t) => sameAsQemu(t, at('mid.qcow2'), { rawDepth: 1 }))

  overlay('top.qcow2', 'mid.qcow2', 'qcow2', '-o', 'cluster_size=64k', '4200k')
  qemuIo(at('top.qcow2'), 'write -P 3 0 64k', 'write -z 512k 64k', 'write -P 3 4160k 40k')
  await t.test('shorter than what it hides', (t) => sameAsQemu(t, at('top.qcow2'), { rawDepth: 2 }))

  qemuImg('resize', '-q', at('top.qcow2'), '9M')
  await t.test('grown: nothing of the longer file below shows', (t) =>
    sameAsQemu(t, at('top.qcow2'), { rawDepth: 2 }),
  )

  overlay('wide.qcow2', 'top.qcow2', 'qcow2', '-o', 'cluster_size=2M')
  qemuIo(at('wide.qcow2'), 'write -P 4 5M 4k')
  await t.test('with larger clusters than below', (t) =>
    sameAsQemu(t, at('wide.qcow2'), { rawDepth: 3 }),
  )
})

t.test('external data files are mapped as QEMU maps them', async (t) => {
  for (const raw of ['off', 'on']) {
    await t.test(`data_file_raw=${raw}`, async (t) => {
      const dir = t.testdir()
      const image = join(dir, 'disk.qcow2')
      const data = join(dir, 'disk.data')
      const options = `data_file=${data},data_file_raw=${raw}`
      qemuImg('create', '-q', '-f', 'qcow2', '-o', options, image, '6M')
      qemuIo(image, ...MIXED)
      const source = await openSource(image)
      t.teardown(() => source.close())
      qemuImg('convert', '-f', 'qcow2', '-O', 'raw', image, `${image}.raw`)
      t.ok((await contentOf(source)).equals(readFileSync(`${image}.raw`)), 'content')
      const ours = await extentsOf(source)
      // QEMU does not look for holes in the data file, so it may say data where we say zero.
      for (const { start, length, zero, present } of qemuImgMap(image)) {
        const under = ours.filter((e) => e.start < start + length && e.start + e.length > start)
        if (zero)
          t.ok(
            under.every((e) => e.zero),
            `zero at ${start}`,
          )
        t.ok(
          under.every((e) => e.hole === !present),
          `allocation at ${start}`,
        )
      }
      const mappings = await mappingsOf(source)
      t.ok(mappings.every((p) => p.kind !== 'data' || (p.store === 1 && p.offset === p.start)))
      t.same(
        source.stores.map((f) => f.path),
        [image, data],
      )
      if (raw === 'on')
        t.ok(
          ours.some((e) => e.zero && !e.hole && e.start > 4 * 2 ** 20),
          'a hole',
        )

      truncateSync(data, 3 * 2 ** 20)
      const short = await openSource(image)
      t.teardown(() => short.close())
      await t.rejects(mappingsOf(short), { code: 'BAD_IMAGE', message: /past the end of the file/ })
    })
  }
})

t.test('internal snapshots, lazy refcounts and the dirty and corrupt flags', async (t) => {
  const image = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'lazy_refcounts=on', image, '6M')
  qemuIo(image, ...MIXED)
  qemuImg('snapshot', '-c', 'one', image)
  qemuIo(image, 'write -P 77 0 200k')
  qemuImg('snapshot', '-c', 'two', image)
  qemuIo(image, 'write -P 78 5M 200k')
  await sameAsQemu(t, image)
  poke(image, 72, peek64(image, 72) | 3n)
  const source = await openSource(image)
  const flagged = await contentOf(source)
  await source.close()
  poke(image, 72, peek64(image, 72) & ~3n)
  qemuImg('convert', '-f', 'qcow2', '-O', 'raw', image, `${image}.raw`)
  t.ok(flagged.equals(readFileSync(`${image}.raw`)))
})

t.test('virtual sizes that are no multiple of a cluster, down to nothing', async (t) => {
  for (const size of ['0', '512', '65024', '66048', '1000448']) {
    const image = join(t.testdir(), 'disk.qcow2')
    qemuImg('create', '-q', '-f', 'qcow2', image, size)
    if (size !== '0') {
      await sameAsQemu(t, image)
      qemuIo(image, `write -P 1 0 ${size}`)
      await sameAsQemu(t, image)
    } else {
      const source = await openSource(image)
      t.same(await mappingsOf(source), [])
      await source.close()
    }
  }
  const image = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', image, '64k')
  poke(image, 24, 1031n)
  await sameAsQemu(t, image, { content: false })
})

t.test('L1 entries that share a table, across many windows', async (t) => {
  const image = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', image, '64M')
  qemuIo(image, 'write -P 1 0 4k', 'write -P 2 8k 4k', 'write -P 3 1M 8k')
  const l1 = Number(peek64(image, 40))
  const shared = peek64(image, l1) & ~(1n << 63n)
  for (let i = 0; i < 32; i += 2) poke(image, l1 + i * 8, shared)
  await sameAsQemu(t, image)
})
