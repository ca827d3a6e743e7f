import { copyFileSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  compareImages,
  fullBackup,
  incrementalBackup,
  mapImage,
  openSource,
  restore,
  verifyManifests,
} from '../../lib/index.ts'
import { randomChanges, randomNumbers } from '../support/changes.ts'
import { firstDifference, noise } from '../support/disks.ts'
import { effort } from '../support/effort.ts'
import { peek, peek64, poke, sizeOf } from '../support/patch.ts'
import { qemuImg, qemuImgInfo, qemuImgMap, qemuIo, run } from '../support/qemu.ts'
import { extentsOf } from '../support/read-source.ts'

t.setTimeout(600_000)

const KIB = 1024
const MIB = 2 ** 20

/** Where the entry of the first snapshot starts. */
function entryOf(image: string): number {
  return Number(peek64(image, 64))
}

async function collect<T>(batches: AsyncIterable<readonly T[]>): Promise<T[]> {
  const all: T[] = []
  for await (const batch of batches) all.push(...batch)
  return all
}

/** What a restore of a snapshot holds, beside what qemu-img converts. */
async function sameAsConvert(t: Test, image: string, snapshot: string): Promise<void> {
  const [ours, theirs] = [`${image}.ours`, `${image}.theirs`]
  qemuImg('convert', '-l', snapshot, '-f', 'qcow2', '-O', 'raw', image, theirs)
  await restore(image, ours, { snapshot, force: true, allowPaths: ['/'] })
  t.equal(firstDifference(ours, theirs), undefined, `${snapshot} is the same`)
}

const KINDS = [
  'cluster_size=512',
  'cluster_size=512,compat=0.10',
  'cluster_size=4k,compression_type=zstd',
  'cluster_size=16k,extended_l2=on',
  'cluster_size=64k',
  'cluster_size=64k,compat=0.10',
  'cluster_size=128k,extended_l2=on,compression_type=zstd',
  'cluster_size=2M',
  'cluster_size=2M,extended_l2=on',
]

for (const [index, options] of KINDS.entries()) {
  for (let seed = 1; seed <= effort(1, 8); seed++) {
    t.test(`random snapshots are what qemu-img converts: ${options}, seed ${seed}`, async (t) => {
      const random = randomNumbers(index * 100 + seed)
      const at = (name: string) => join(t.testdirName, name)
      t.testdir()
      const size = 5 * MIB + 512 * random(1000)
      const below = random(3)
      const over = below === 0 ? [] : ['-b', 'below', '-F', below === 1 ? 'raw' : 'qcow2']
      if (below === 1) writeFileSync(at('below'), noise(3 * MIB, seed))
      if (below === 2) {
        qemuImg('create', '-q', '-f', 'qcow2', at('below'), '9M')
        qemuIo(at('below'), ...randomChanges(9 * MIB, 20, seed))
      }
      const image = at('disk.qcow2')
      qemuImg('create', '-q', '-f', 'qcow2', '-o', options, ...over, image, String(size))
      const clusterSize = qemuImgInfo(image)['cluster-size'] as number
      const count = 2 + random(effort(2, 4))
      for (let i = 1; i <= count; i++) {
        qemuIo(image, ...randomChanges(size, 12, seed * 50 + i))
        const cluster = random(Math.floor(size / clusterSize)) * clusterSize
        // Compressed clusters are written only where nothing is; version 2 keeps what is discarded.
        const compressed = [
          `discard ${cluster} ${clusterSize}`,
          `write -c ${cluster} ${clusterSize}`,
        ]
        run('qemu-io', [...compressed.flatMap((one) => ['-c', one]), image])
        qemuImg('snapshot', '-c', `point ${i}`, image)
      }
      qemuIo(image, ...randomChanges(size, 12, seed * 50))
      qemuImg('snapshot', '-d', 'point 2', image)
      for (let i = 1; i <= count; i++) {
        if (i === 2) continue
        await sameAsConvert(t, image, `point ${i}`)
        await sameMaps(t, image, `point ${i}`)
      }
    })
  }
}

/** Where an image is when QEMU has gone back to a snapshot is where we say it is now. */
async function sameMaps(t: Test, image: string, snapshot: string): Promise<void> {
  const then = `${image}.then`
  copyFileSync(image, then)
  qemuImg('snapshot', '-a', snapshot, then)
  const ours = await collect(mapImage(image, { snapshot }))
  const theirs = qemuImgMap(then)
  t.strictSame(
    ours.map(({ start, length, depth, zero, data, offset }) => [
      start,
      length,
      depth,
      zero,
      data,
      offset,
    ]),
    theirs.map(({ start, length, depth, zero, data, offset }) => [
      start,
      length,
      depth,
      zero,
      data,
      offset,
    ]),
    `map of ${snapshot}`,
  )
  const [one, other] = await Promise.all([
    openSource(image, { snapshot }),
    openSource(then, { format: 'qcow2' }),
  ])
  t.strictSame(await extentsOf(one), await extentsOf(other), `extents of ${snapshot}`)
  await Promise.all([one.close(), other.close()])
}

t.test('a snapshot has its own size, whatever became of the disk', async (t) => {
  for (const now of ['1M', '9M']) {
    const image = join(t.testdir(), 'disk.qcow2')
    qemuImg('create', '-q', '-f', 'qcow2', image, '4M')
    qemuIo(image, 'write -P 1 1k 3M', 'write -P 2 4095k 1k')
    qemuImg('snapshot', '-c', 'then', image)
    qemuImg('resize', '-q', '--shrink', image, now)
    qemuIo(image, 'write -P 3 0 1M')
    const then = `${image}.then`
    copyFileSync(image, then)
    qemuImg('snapshot', '-a', 'then', then)
    qemuImg('convert', '-f', 'qcow2', '-O', 'raw', then, `${image}.raw`)
    await restore(image, `${image}.ours`, { snapshot: 'then' })
    t.equal(firstDifference(`${image}.ours`, `${image}.raw`), undefined, `now ${now}`)
    const { identical, sizes } = await compareImages([image, `${image}.raw`], {
      snapshots: ['then', undefined],
    })
    t.ok(identical)
    t.strictSame(sizes, [4 * MIB, 4 * MIB])
  }
})

t.test('the state of the machine is not part of the disk', async (t) => {
  const image = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', image, '1M')
  qemuIo(image, 'write -P 1 0 64k', 'write -b -P 9 0 2M')
  qemuImg('snapshot', '-c', 'running', image)
  await sameAsConvert(t, image, 'running')
  t.equal(sizeOf(`${image}.ours`), MIB)
})

t.test('an id is looked for before a name, and of equal names the first is meant', async (t) => {
  const image = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', image, '1M')
  for (const [i, name] of ['2', 'twice', 'twice', '1'].entries()) {
    qemuIo(image, `write -P ${i + 1} 0 64k`)
    qemuImg('snapshot', '-c', name, image)
  }
  for (const choice of ['1', '2', '3', 'twice']) await sameAsConvert(t, image, choice)
  const noted = async (snapshot: string) => {
    const source = await openSource(image, { snapshot })
    await source.close()
    return source.notes
  }
  t.strictSame(await noted('twice'), [
    `${image} has 2 snapshots with the name or id 'twice'; the one with id '2' was read`,
  ])
  t.strictSame(await noted('1'), [
    `${image} has 2 snapshots with the name or id '1'; the one with id '1' was read`,
  ])
  t.strictSame(await noted('3'), [])
})

t.test('two snapshots of one image are compared with each other', async (t) => {
  const image = join(t.testdir(), 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', image, '1M')
  qemuIo(image, 'write -P 1 0 64k')
  qemuImg('snapshot', '-c', 'a', image)
  qemuImg('snapshot', '-c', 'b', image)
  qemuIo(image, 'write -P 2 4k 1k')
  qemuImg('snapshot', '-c', 'c', image)
  const compare = (...snapshots: [string?, string?]) =>
    compareImages([image, image], { snapshots: [snapshots[0], snapshots[1]] })
  t.equal((await compare('a', 'b')).identical, true)
  t.match((await compare('b', 'c')).finding, { kind: 'content', start: 4 * KIB })
  t.match((await compare('b')).finding, { kind: 'content', start: 4 * KIB })
  t.equal((await compare(undefined, 'c')).identical, true)
})

t.test('a full backup of a snapshot: its manifest names it', async (t) => {
  const image = join(t.testdir(), 'disk.qcow2')
  const backup = join(t.testdirName, 'backup.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', image, '4M')
  qemuIo(image, 'write -P 1 0 2M')
  qemuImg('snapshot', '-c', 'before update', image)
  qemuIo(image, 'write -P 2 1M 2M')
  await fullBackup(image, backup, { snapshot: '1', verify: true, manifest: true })
  const { identical } = await compareImages([image, backup], { snapshots: ['1', undefined] })
  t.equal(identical, true)
  const manifest = JSON.parse(readFileSync(`${backup}.manifest.json`, 'utf8'))
  t.equal(manifest.snapshot, 'before update')
  for await (const { same } of verifyManifests([backup])) t.equal(same, true)
})

t.test('a snapshot that cannot be read is one clear error', async (t) => {
  const image = join(t.testdir(), 'disk.qcow2')
  const raw = join(t.testdirName, 'disk.raw')
  qemuImg('create', '-q', '-f', 'qcow2', image, '1M')
  writeFileSync(raw, Buffer.alloc(KIB))
  const refused = async (open: Promise<unknown>, expected: { code: string; message: string }) =>
    await t.rejects(open, expected)
  await refused(openSource(image, { snapshot: 'x' }), {
    code: 'USAGE',
    message: `${image}: has no snapshot 'x'; it has none`,
  })
  for (let i = 1; i <= 12; i++) qemuImg('snapshot', '-c', `s${i}`, image)
  await refused(openSource(image, { snapshot: '13' }), {
    code: 'USAGE',
    message:
      `${image}: has no snapshot '13'; it has ` +
      `${Array.from({ length: 10 }, (_, i) => `'s${i + 1}' (id '${i + 1}')`).join(', ')} and 2 more`,
  })
  await refused(openSource(raw, { format: 'raw', snapshot: 's1' }), {
    code: 'USAGE',
    message: `${raw}: is raw and has no snapshots`,
  })
  const only = {
    code: 'USAGE',
    message: 'snapshot: only a qcow2 image has internal snapshots',
  } as const
  await refused(openSource('nbd://localhost/x', { snapshot: 's1' }), only)
  const custom = { name: 'x', size: 512, async *extents() {}, read: async () => Buffer.alloc(0) }
  await refused(openSource(custom, { snapshot: 's1' }), only)
  await refused(openSource(image, { snapshot: 's1', bitmap: 'b' }), {
    code: 'USAGE',
    message: 'snapshot: cannot be combined with a bitmap, which goes on after it',
  })
  const since = { bitmap: 'b', backing: image, snapshot: 's1' }
  await refused(incrementalBackup(image, `${image}.new`, since), {
    code: 'USAGE',
    message: 'snapshot: there is no such option',
  })
  await refused(restore(image, `${image}.new`, { snapshot: 's1', verify: true }), {
    code: 'USAGE',
    message: 'verify: cannot be combined with a snapshot, which no manifest records',
  })
})

t.test('a snapshot whose entry cannot be true is refused', async (t) => {
  const cases: [why: string, change: (image: string, entry: number) => void][] = [
    ['snapshot L1 table offset invalid', (i, entry) => poke(i, entry, peek64(i, entry) + 512n)],
    ['snapshot L1 table too large', (i, entry) => poke(i, entry + 8, 2 ** 22 + 1)],
    ['L1 table is too small', (i, entry) => poke(i, entry + 8, 0)],
    ['L1 table is too small', (i, entry) => poke(i, entry + 48, 1n << 50n)],
    ['image is too big', (i, entry) => poke(i, entry + 48, (1n << 64n) - 1n)],
    ['snapshot L1 table lies over the header', (i, entry) => poke(i, entry, 0n)],
    ['L1 table reaches past the end of the file', (i, entry) => poke(i, entry, 1n << 40n)],
    ['snapshot 0 has 1025 bytes of extra data, more than 1024', (i, e) => poke(i, e + 36, 1025)],
  ]
  for (const [why, change] of cases) {
    const image = join(t.testdir(), 'disk.qcow2')
    qemuImg('create', '-q', '-f', 'qcow2', image, '1G')
    qemuIo(image, 'write -P 1 0 64k')
    qemuImg('snapshot', '-c', 's', image)
    change(image, entryOf(image))
    await t.rejects(openSource(image, { snapshot: 's' }), { code: 'BAD_IMAGE', what: image, why })
  }
})

t.test('an image whose data is in another file has no snapshots to read', async (t) => {
  const image = join(t.testdir(), 'disk.qcow2')
  const data = ['-o', `data_file=${join(t.testdirName, 'data')}`]
  qemuImg('create', '-q', '-f', 'qcow2', ...data, image, '1M')
  // QEMU makes none: a table at the end of the file, of an entry whose L1 table is the active one.
  const table = Math.ceil(sizeOf(image) / 65536) * 65536
  poke(image, table, Buffer.concat([peek(image, 40, 8), Buffer.from('0000000100010001', 'hex')]))
  poke(image, table + 16, Buffer.alloc(40 + 65536))
  poke(image, table + 36, 16)
  poke(image, table + 48, BigInt(MIB))
  poke(image, table + 56, 's')
  poke(image, table + 57, 's')
  poke(image, 60, 1)
  poke(image, 64, BigInt(table))
  await t.rejects(openSource(image, { snapshot: 's' }), {
    code: 'UNSUPPORTED',
    why: 'has its data in another file, which keeps no snapshots',
  })
})

t.test(
  'while the disk is written to, its snapshot stays what it is until it is deleted',
  async (t) => {
    const image = join(t.testdir(), 'disk.qcow2')
    qemuImg('create', '-q', '-f', 'qcow2', image, '8M')
    qemuIo(image, 'write -P 1 0 4M')
    qemuImg('snapshot', '-c', 's', image)
    const source = await openSource(image, { snapshot: 's', forceShare: true })
    t.teardown(() => source.close())
    qemuIo(image, 'write -P 2 0 8M')
    qemuImg('snapshot', '-c', 'another', image)
    await source.checkUnchanged()
    t.strictSame(source.snapshot, { id: '1', name: 's' })
    t.strictSame(await extentsOf(source), [
      { start: 0, length: 4 * MIB, zero: false, hole: false },
      { start: 4 * MIB, length: 4 * MIB, zero: true, hole: true },
    ])
    qemuImg('snapshot', '-d', 's', image)
    qemuImg('snapshot', '-c', 's', image)
    await t.rejects(source.checkUnchanged(), {
      code: 'SOURCE_CHANGED',
      why: "its snapshot 's' was deleted while it was read",
    })
  },
)
