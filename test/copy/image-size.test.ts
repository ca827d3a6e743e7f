import { statSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { fullImageBytes, plannedImageBytes } from '../../lib/copy/image-size.ts'
import { editBitmap, fullBackup, incrementalBackup } from '../../lib/index.ts'
import { openSource } from '../../lib/source/open-source.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { qemuImg, run } from '../support/qemu.ts'

t.setTimeout(180_000)

const MIB = 2 ** 20
const CLUSTER_SIZES = [512, 4096, 65536, 2 * MIB]

/** The size of an image, to a whole cluster. */
function clustersOf(path: string, clusterSize: number): number {
  return Math.ceil(statSync(path).size / clusterSize) * clusterSize
}

t.test('a full image takes what is planned for it, to the cluster', async (t) => {
  const parts = [
    { at: 0, bytes: noise(300_000) },
    { at: 3 * MIB + 4096, bytes: noise(MIB, 2) },
    { at: 8 * MIB - 512, bytes: noise(512, 3) },
  ]
  const disk = makeRaw(join(t.testdir(), 'disk.raw'), 8 * MIB, parts)
  for (const clusterSize of CLUSTER_SIZES) {
    const layout = { clusterBits: Math.log2(clusterSize) }
    const source = await openSource(disk)
    const planned = await plannedImageBytes(source, layout)
    await source.close()
    for (const options of [{}, { compress: 'zstd' }, { compress: 'zlib' }] as const) {
      const image = join(t.testdirName, 'image.qcow2')
      await fullBackup(disk, image, { clusterSize, force: true, ...options })
      const told = `clusters of ${clusterSize}, ${JSON.stringify(options)}`
      // Blocks of a file are the least that a file system tells: small clusters may lie in holes.
      const taken = clustersOf(image, clusterSize)
      t.ok(taken <= planned, `${told}: ${taken} of ${planned}`)
      if (clusterSize >= 4096 && !('compress' in options)) t.equal(taken, planned, told)
    }
  }
})

t.test('an image of a full disk takes as much as any', async (t) => {
  const disk = makeRaw(join(t.testdir(), 'disk.raw'), 5 * MIB, [{ at: 0, bytes: noise(5 * MIB) }])
  for (const clusterSize of CLUSTER_SIZES) {
    const image = join(t.testdirName, 'image.qcow2')
    await fullBackup(disk, image, { clusterSize, force: true })
    const most = fullImageBytes(5 * MIB, { clusterBits: Math.log2(clusterSize) })
    t.equal(clustersOf(image, clusterSize), most, `clusters of ${clusterSize}`)
  }
})

t.test('an increment takes at most what is planned for it', async (t) => {
  const directory = t.testdir()
  const disk = join(directory, 'disk.qcow2')
  qemuImg('create', '-f', 'qcow2', disk, '64M')
  await editBitmap(disk, 'changes', [{ kind: 'add' }])
  const full = join(directory, 'full.qcow2')
  await fullBackup(disk, full)
  run('qemu-io', [
    ...['-f', 'qcow2', '-c', 'write -P 5 1M 3M', '-c', 'write -z 10M 30M'],
    ...['-c', 'write -P 6 63M 512', disk],
  ])
  for (const clusterSize of CLUSTER_SIZES) {
    const layout = { clusterBits: Math.log2(clusterSize), backing: { size: 64 * MIB } }
    const source = await openSource(disk, { bitmap: 'changes' })
    const planned = await plannedImageBytes(source, layout)
    await source.close()
    const image = join(directory, 'increment.qcow2')
    const options = { bitmap: 'changes', backing: full, clusterSize, force: true }
    const { dataBytes } = await incrementalBackup(disk, image, options)
    t.ok(dataBytes > 3 * MIB)
    const taken = clustersOf(image, clusterSize)
    t.ok(taken <= planned, `clusters of ${clusterSize}: ${taken} of ${planned}`)
    t.ok(planned < fullImageBytes(64 * MIB, layout) / 3, 'and not of the whole disk')
  }
})
