import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type FullOptions, fullBackup, restore } from '../../lib/index.ts'
import { firstDifference, makeRaw, noise, type Part, prose } from '../support/disks.ts'
import { effort, someOf, THOROUGH } from '../support/effort.ts'
import { peek } from '../support/patch.ts'
import { qemuImg, qemuImgCheck, qemuImgInfo, qemuImgSame } from '../support/qemu.ts'

// More than tap's default, for a busy machine.
t.setTimeout(1_800_000)

const KIB = 2 ** 10
const MIB = 2 ** 20
const METHODS = ['zlib', 'zstd'] as const

/** Text that compresses well, noise, holes, and clusters that hold some of each. */
const MIXED: Part[] = [
  { at: 0, bytes: prose(MIB) },
  { at: MIB + 4096, bytes: noise(600_000) },
  { at: 2 * MIB + 111, bytes: prose(300_000, 2) },
  { at: 3 * MIB, bytes: noise(1000, 3) },
  { at: 4 * MIB - 3 * KIB, bytes: prose(3 * KIB + 512, 4) },
]
const SIZE = 4 * MIB + 512

/** What holds for every image that we compress: QEMU and we read the disk back. */
async function checkImage(t: Test, image: string, disk: string): Promise<void> {
  const { status, stderr } = qemuImgCheck(image)
  t.equal(status, 0, `check is clean ${stderr}`)
  t.ok(qemuImgSame({ path: image, format: 'qcow2' }, { path: disk, format: 'raw' }), 'compare')
  const raw = `${image}.raw`
  await restore(image, raw, { force: true })
  t.equal(firstDifference(raw, disk), undefined, 'restored')
}

/** Bytes in the clusters that are compressed, as QEMU counts them. */
function compressedClusters(image: string): number {
  return qemuImgCheck(image).report['compressed-clusters'] ?? 0
}

t.test('compressed images of every cluster size hold the disk', async (t) => {
  const disk = makeRaw(join(t.testdir(), 'disk.raw'), SIZE, MIXED)
  for (const compress of METHODS) {
    for (let clusterSize = 512; clusterSize <= 2 * MIB; clusterSize *= effort(64, 2)) {
      await t.test(`${compress}, clusters of ${clusterSize}`, async (t) => {
        const [plain, image] = ['plain', 'image'].map((name) => join(t.testdir(), name))
        await fullBackup(disk, plain, { clusterSize })
        const result = await fullBackup(disk, image, { clusterSize, compress })
        t.equal(result.dataBytes + result.zeroBytes, SIZE)
        await checkImage(t, image, disk)
        t.ok(statSync(image).size < statSync(plain).size, 'smaller than uncompressed')
        const info = qemuImgInfo(image)
        t.equal(info['format-specific']?.data['compression-type'], compress)
        t.ok(compressedClusters(image) > 0)
      })
    }
  }
})

t.test('levels: all are read back, a high one is smaller than a low one', async (t) => {
  const directory = t.testdir()
  // Machine code: made bytes do not tell the levels apart.
  const code = peek(process.execPath, 32 * MIB, 2 * MIB)
  const disk = makeRaw(join(directory, 'disk.raw'), 2 * MIB, [{ at: 0, bytes: code }])
  for (const [compress, levels] of [
    ['zlib', effort([1, 12], [1, 2, 6, 9, 12])],
    ['zstd', effort([1, 22], [1, 3, 9, 19, 22])],
  ] as const) {
    const sizes: number[] = []
    for (const compressionLevel of levels) {
      const image = join(directory, `${compress}-${compressionLevel}.qcow2`)
      await fullBackup(disk, image, { compress, compressionLevel, clusterSize: 64 * KIB })
      await checkImage(t, image, disk)
      sizes.push(statSync(image).size)
    }
    t.comment(`${compress} at ${levels.join(', ')}: ${sizes.join(', ')} bytes`)
    t.ok(sizes.at(-1)! < sizes[0], `${compress}: ${sizes}`)
  }
})

t.test('the level without one is the default', async (t) => {
  const directory = t.testdir()
  const disk = makeRaw(join(directory, 'disk.raw'), SIZE, MIXED)
  for (const [compress, compressionLevel] of [
    ['zlib', 2],
    ['zstd', 3],
  ] as const) {
    const [left, right] = ['left', 'right'].map((name) => join(directory, `${compress}-${name}`))
    await fullBackup(disk, left, { compress })
    await fullBackup(disk, right, { compress, compressionLevel })
    t.ok(readFileSync(left).equals(readFileSync(right)), compress)
  }
})

t.test('what cannot be compressed is stored as it is', async (t) => {
  const directory = t.testdir()
  const disk = makeRaw(join(directory, 'disk.raw'), MIB, [{ at: 0, bytes: noise(MIB) }])
  const plain = join(directory, 'plain.qcow2')
  for (const compress of METHODS) {
    for (const clusterSize of effort([512, 2 * MIB], [512, 64 * KIB, 2 * MIB])) {
      await fullBackup(disk, plain, { clusterSize, force: true })
      const image = join(directory, `${compress}-${clusterSize}.qcow2`)
      await fullBackup(disk, image, { clusterSize, compress })
      await checkImage(t, image, disk)
      // The second MiB of a cluster of 2 MiB is zeroes beyond the end of the disk.
      if (clusterSize > MIB) continue
      t.equal(compressedClusters(image), 0)
      t.equal(statSync(image).size, statSync(plain).size, 'no larger than uncompressed')
      t.equal(qemuImgCheck(image).report['fragmented-clusters'] ?? 0, 0)
    }
  }
})

t.test('clusters at the limit of compressing are stored right', async (t) => {
  const directory = t.testdir()
  // From clusters that are all noise to clusters that are nearly all text, byte by byte.
  const clusters = Array.from({ length: 256 }, (_, i) =>
    Buffer.concat([noise(4096 - i, i), Buffer.alloc(i, 'x')]),
  )
  const disk = makeRaw(join(directory, 'disk.raw'), MIB, [
    { at: 0, bytes: Buffer.concat(clusters) },
  ])
  for (const compress of METHODS) {
    const image = join(directory, `${compress}.qcow2`)
    await fullBackup(disk, image, { clusterSize: 4096, compress })
    await checkImage(t, image, disk)
    const count = compressedClusters(image)
    t.ok(count > 128 && count < 256, `${count} of 256 are compressed`)
  }
})

t.test('the image does not depend on the order in which the processors finish', async (t) => {
  const directory = t.testdir()
  const disk = makeRaw(join(directory, 'disk.raw'), SIZE, MIXED)
  const images: Buffer[] = []
  for (const how of [
    { requests: 1 },
    { requests: 64 },
    { engine: 'threads' },
    { direct: 'off' },
  ] satisfies FullOptions[]) {
    const image = join(directory, 'image.qcow2')
    await fullBackup(disk, image, { ...how, compress: 'zlib', clusterSize: 4096, force: true })
    images.push(readFileSync(image))
  }
  for (const image of images) t.ok(image.equals(images[0]))
})

t.test('about as small as what qemu-img makes, or smaller', async (t) => {
  const directory = t.testdir()
  const disk = makeRaw(join(directory, 'disk.raw'), SIZE, MIXED)
  for (const [compress, compressionLevel, most] of [
    // zlib's default level is what QEMU takes; the level of libdeflate that matches it is 6.
    ['zlib', undefined, 1.05],
    ['zlib', 6, 1.0],
    ['zstd', undefined, 1.0],
  ] as const) {
    const [ours, theirs] = ['ours', 'theirs'].map((name) => join(directory, `${name}.qcow2`))
    await fullBackup(disk, ours, { compress, compressionLevel, force: true })
    const options = `compression_type=${compress}`
    qemuImg('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', options, disk, theirs)
    // An image ends at a whole cluster, which counts here: the disk is small.
    const ratio = (statSync(ours).size - 64 * KIB) / statSync(theirs).size
    const told = `${compress}, level ${compressionLevel ?? 'default'}: ${ratio.toFixed(3)}`
    t.comment(told)
    t.ok(ratio <= most, told)
  }
})

t.test('compressed images as sources, ours and those of qemu-img', async (t) => {
  const directory = t.testdir()
  const disk = makeRaw(join(directory, 'disk.raw'), SIZE, MIXED)
  for (const [i, compress] of METHODS.entries()) {
    for (const [j, clusterSize] of [512, 4 * KIB, 64 * KIB, 2 * MIB].entries()) {
      if (!THOROUGH && (i + j) % 2 === 1) continue
      const theirs = join(directory, `${compress}-${clusterSize}.qcow2`)
      const options = `compression_type=${compress},cluster_size=${clusterSize}`
      qemuImg('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', options, disk, theirs)
      const image = join(directory, 'image.qcow2')
      // To clusters that are smaller, equal and larger than those of the source.
      const ways = [{ clusterSize: 4 * KIB }, { clusterSize: MIB, compress }]
      for (const how of someOf(ways, j)) {
        await fullBackup(theirs, image, { ...how, force: true })
        await checkImage(t, image, disk)
      }
      const raw = join(directory, 'restored.raw')
      await restore(theirs, raw, { force: true })
      t.equal(firstDifference(raw, disk), undefined, `${compress} ${clusterSize}`)
    }
  }
})

t.test('restoring to qcow2 can compress', async (t) => {
  const directory = t.testdir()
  const disk = makeRaw(join(directory, 'disk.raw'), SIZE, MIXED)
  const [backup, image] = ['backup', 'image'].map((name) => join(directory, `${name}.qcow2`))
  await fullBackup(disk, backup)
  const clusterSize = 16 * KIB
  await restore(backup, image, { outputFormat: 'qcow2', compress: 'zstd', clusterSize })
  await checkImage(t, image, disk)
  t.equal(peek(image, 20, 4).readUInt32BE(), 14)
  t.ok(compressedClusters(image) > 0)
})
