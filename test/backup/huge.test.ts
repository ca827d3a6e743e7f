import { rmSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { type Extent, fullBackup, openSource, restore } from '../../lib/index.ts'
import { makeRaw, noise, type Part } from '../support/disks.ts'
import { peek, sizeOf } from '../support/patch.ts'
import { qemuImg, qemuImgCheck, qemuImgSame, qemuIo } from '../support/qemu.ts'
import { extentsOf } from '../support/read-source.ts'

// More than tap's default, for a busy machine.
t.setTimeout(300_000)

const KIB = 2 ** 10
const GIB = 2 ** 30
const TIB = 2 ** 40
const BLOCK = 64 * KIB

/** Blocks all over a disk, in its first and in its last cluster too. */
function scattered(size: number, count: number): Part[] {
  const random = noise(4 * count)
  const clusters = size / BLOCK
  const places = new Set([0, clusters - 1])
  for (let i = 0; i < count - 2; i++) {
    places.add(Math.floor((random.readUInt32LE(4 * i) / 2 ** 32) * clusters))
  }
  return [...places]
    .sort((a, b) => a - b)
    .map((place, i) => ({ at: place * BLOCK, bytes: noise(BLOCK, i) }))
}

async function dataOf(path: string): Promise<Extent[]> {
  const source = await openSource(path)
  try {
    return (await extentsOf(source)).filter(({ zero }) => !zero)
  } finally {
    await source.close()
  }
}

t.test('15 TiB with a few scattered blocks are backed up in bounds', async (t) => {
  const directory = t.testdir()
  const size = 15 * TIB
  const parts = scattered(size, 300)
  const disk = makeRaw(join(directory, 'disk.raw'), size, parts)
  const image = join(directory, 'backup.qcow2')
  const result = await fullBackup(disk, image, { clusterSize: BLOCK })
  t.match(result, { virtualSize: size, dataBytes: parts.length * BLOCK })
  t.equal(result.zeroBytes, size - result.dataBytes)

  const { status, report } = qemuImgCheck(image)
  t.equal(status, 0)
  t.equal(report['fragmented-clusters'] ?? 0, 0)
  t.equal(report['allocated-clusters'], parts.length)
  // Each block brings a table at most; and then there are the L1 table and the refcounts.
  t.ok(sizeOf(image) < (2 * parts.length + 16) * BLOCK, `${sizeOf(image)} bytes`)

  const restored = join(directory, 'restored.raw')
  await restore(image, restored)
  t.equal(sizeOf(restored), size)
  const wanted = parts.map(({ at }) => at)
  for (const path of [image, restored]) {
    t.strictSame((await dataOf(path)).flatMap(blocksOf), wanted, `where data are in ${path}`)
  }
  const wrong = parts.filter(({ at, bytes }) => !peek(restored, at, BLOCK).equals(bytes))
  t.strictSame(wrong, [], 'every block')
  t.ok(qemuImgSame({ path: image, format: 'qcow2' }, { path: disk, format: 'raw' }))
  rmSync(restored)
})

/** Where the blocks of an extent start. */
function blocksOf({ start, length }: Extent): number[] {
  return Array.from({ length: length / BLOCK }, (_, i) => start + i * BLOCK)
}

t.test('15 TiB of nothing are backed up in bounds', async (t) => {
  const directory = t.testdir()
  const disk = makeRaw(join(directory, 'disk.raw'), 15 * TIB, [])
  const image = join(directory, 'backup.qcow2')
  const result = await fullBackup(disk, image)
  t.match(result, { virtualSize: 15 * TIB, dataBytes: 0, zeroBytes: 15 * TIB })
  t.ok(sizeOf(image) <= 512 * KIB, `${sizeOf(image)} bytes`)
  t.equal(qemuImgCheck(image).status, 0)
  t.strictSame(await dataOf(image), [])
  const restored = join(directory, 'restored.raw')
  t.match(await restore(image, restored), { fileSize: 15 * TIB, allocatedBytes: 0 })
})

t.test('a qcow2 disk of 64 TiB is backed up in bounds', async (t) => {
  const directory = t.testdir()
  const [disk, image] = ['disk', 'backup'].map((name) => join(directory, `${name}.qcow2`))
  qemuImg('create', '-q', '-f', 'qcow2', disk, '64T')
  const places = [0, 63 * GIB, 2 * TIB, 16 * TIB - BLOCK, 16 * TIB, 64 * TIB - BLOCK]
  qemuIo(disk, ...places.map((at, i) => `write -q -P ${i + 1} ${at} ${BLOCK}`))
  const result = await fullBackup(disk, image)
  t.match(result, { virtualSize: 64 * TIB, dataBytes: places.length * BLOCK })
  t.equal(qemuImgCheck(image).status, 0)
  t.strictSame((await dataOf(image)).flatMap(blocksOf), places)
  t.ok(qemuImgSame({ path: image, format: 'qcow2' }, { path: disk, format: 'qcow2' }))
  for (const [i, at] of places.entries()) {
    t.match(qemuIo(image, `read -P ${i + 1} ${at} ${BLOCK}`), /^read 65536/)
  }
})

t.test('the largest disk for the smallest clusters is backed up', async (t) => {
  const directory = t.testdir()
  const size = 128 * GIB
  const places = [0, 5 * GIB + 512, size - 512]
  const parts = places.map((at, i) => ({ at, bytes: Buffer.alloc(512, i + 1) }))
  const disk = makeRaw(join(directory, 'disk.raw'), size, parts)
  const image = join(directory, 'backup.qcow2')
  t.match(await fullBackup(disk, image, { clusterSize: 512 }), { dataBytes: 3 * 512 })
  t.equal(qemuImgCheck(image).status, 0)
  t.strictSame(
    (await dataOf(image)).map(({ start }) => start),
    places,
  )
  for (const [i, at] of places.entries()) {
    t.match(qemuIo(image, `read -P ${i + 1} ${at} 512`), /^read 512/)
  }
})
