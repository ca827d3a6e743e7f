import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  createSnapshot,
  editBitmap,
  fullBackup,
  incrementalBackup,
  openSource,
  restore,
} from '../../lib/index.ts'
import { runCli } from '../support/cli.ts'
import { contentOfParts, firstDifference, makeRaw, noise, prose } from '../support/disks.ts'
import { loopDevice, NO_LOOP_DEVICES } from '../support/loop.ts'
import { qemuImg, qemuImgCheck, qemuImgSame, run } from '../support/qemu.ts'
import { extentsOf } from '../support/read-source.ts'

// More than tap's default, for a busy machine.
t.setTimeout(180_000)

const MIB = 2 ** 20
const SKIP = { skip: NO_LOOP_DEVICES }

const PARTS = [
  { at: 0, bytes: noise(300_000) },
  { at: 2 * MIB + 99, bytes: prose(MIB) },
  // Ends with a disk of 8 MiB and with one of a sector more.
  { at: 8 * MIB - 1000, bytes: noise(1000 + 512, 2) },
]

/** A disk with holes, its content, and its backup. */
async function setUp(test: Test, size = 8 * MIB) {
  const directory = test.testdir()
  const disk = makeRaw(join(directory, 'disk.raw'), size, PARTS)
  const backup = join(directory, 'backup.qcow2')
  await fullBackup(disk, backup)
  return { directory, disk, backup, content: contentOfParts(size, PARTS) }
}

/** The first bytes of a device, which are all that a smaller disk takes. */
function headOf(device: string, size: number): Buffer {
  return readFileSync(device).subarray(0, size)
}

t.test('a device as source is backed up whole', SKIP, async (t) => {
  const { directory, content } = await setUp(t)
  const device = loopDevice(t, 'source', 8 * MIB)
  writeFileSync(device, content, { flag: 'r+' })

  const source = await openSource(device)
  t.equal(source.format, 'raw')
  t.strictSame(await extentsOf(source), [{ start: 0, length: 8 * MIB, zero: false, hole: false }])
  await source.close()

  const image = join(directory, 'device.qcow2')
  for (const how of [{ direct: 'on' }, { direct: 'off' }, { engine: 'threads' }] as const) {
    const result = await fullBackup(device, image, { ...how, force: true })
    t.equal(result.virtualSize, 8 * MIB)
    t.equal(qemuImgCheck(image).status, 0)
    const same = qemuImgSame({ path: image, format: 'qcow2' }, { path: device, format: 'raw' })
    t.ok(same, JSON.stringify(how))
    // Zeroes of a device take no more room than holes of a file.
    const { fileSize } = await fullBackup(join(directory, 'disk.raw'), `${image}2`, { force: true })
    t.equal(result.fileSize, fileSize)
  }
})

t.test('a qcow2 image on a device is backed up', SKIP, async (t) => {
  const { directory, disk } = await setUp(t)
  const device = loopDevice(t, 'source', 16 * MIB)
  qemuImg('convert', '-n', '-f', 'raw', '-O', 'raw', disk, device)
  qemuImg('convert', '-f', 'raw', '-O', 'qcow2', disk, join(directory, 'copy.qcow2'))
  writeFileSync(device, readFileSync(join(directory, 'copy.qcow2')), { flag: 'r+' })
  const image = join(directory, 'device.qcow2')
  const result = await fullBackup(device, image)
  t.equal(result.virtualSize, 8 * MIB)
  t.ok(qemuImgSame({ path: image, format: 'qcow2' }, { path: disk, format: 'raw' }))
})

t.test('a device that held something reads as the backup after a restore', SKIP, async (t) => {
  for (const sectorSize of [512, 4096]) {
    for (const how of [{ direct: 'on' }, { direct: 'off' }, { engine: 'threads' }] as const) {
      const name = `sectors of ${sectorSize}, ${JSON.stringify(how)}`
      await t.test(name, async (t) => {
        const { backup, content } = await setUp(t)
        const device = loopDevice(t, 'target', 10 * MIB, sectorSize)
        const garbage = noise(10 * MIB, 7)
        writeFileSync(device, garbage, { flag: 'r+' })
        await t.rejects(restore(backup, device, how), { code: 'TARGET_EXISTS' }, 'needs force')
        t.ok(readFileSync(device).equals(garbage), 'refused, it is as it was')

        const result = await restore(backup, device, { ...how, force: true })
        t.equal(
          firstDifference(headOf(device, 8 * MIB), content),
          undefined,
          'every byte, zeroes too',
        )
        t.ok(
          readFileSync(device)
            .subarray(8 * MIB)
            .equals(garbage.subarray(8 * MIB)),
          'the rest',
        )
        t.match(result, { target: device, virtualSize: 8 * MIB, fileSize: 10 * MIB })
        t.equal(result.dataBytes + result.zeroBytes, 8 * MIB)
      })
    }
  }
})

t.test('a disk that ends within a sector of the device', SKIP, async (t) => {
  for (const direct of ['on', 'off'] as const) {
    for (const size of [8 * MIB + 512, 4 * MIB + 512]) {
      await t.test(`O_DIRECT ${direct}, ${size} bytes`, async (t) => {
        const { backup, content } = await setUp(t, size)
        const device = loopDevice(t, 'target', 10 * MIB, 4096)
        const garbage = noise(10 * MIB, 7)
        writeFileSync(device, garbage, { flag: 'r+' })
        await restore(backup, device, { direct, force: true })
        t.equal(firstDifference(headOf(device, size), content), undefined)
        const next = size + 4096 - 512
        t.ok(readFileSync(device).subarray(next).equals(garbage.subarray(next)), 'the rest')
      })
    }
  }
})

t.test('an image is written to a device that holds nothing else', SKIP, async (t) => {
  const { disk } = await setUp(t)
  const device = loopDevice(t, 'target', 16 * MIB)
  writeFileSync(device, noise(16 * MIB, 7), { flag: 'r+' })
  await t.rejects(fullBackup(disk, device), { code: 'TARGET_EXISTS' })
  for (const how of [
    { direct: 'on' },
    { direct: 'off', engine: 'threads' },
    { clusterSize: 512 },
    { clusterSize: 2 * MIB },
    { compress: 'zstd' },
  ] as const) {
    const told = JSON.stringify(how)
    const result = await fullBackup(disk, device, { ...how, force: true })
    t.match(result, { virtualSize: 8 * MIB, fileSize: 16 * MIB, allocatedBytes: 16 * MIB }, told)
    const { status, report } = qemuImgCheck(device)
    t.equal(status, 0, `check: ${told}`)
    if (!('compress' in how)) t.equal(report['fragmented-clusters'] ?? 0, 0, told)
    const image = { path: device, format: 'qcow2' }
    t.ok(qemuImgSame(image, { path: disk, format: 'raw' }), `compare: ${told}`)
    const again = join(t.testdirName, 'again.raw')
    await restore(device, again, { force: true })
    t.equal(firstDifference(again, disk), undefined, `restored: ${told}`)
  }
})

t.test('a device that is too small is refused', SKIP, async (t) => {
  const { directory, disk, backup } = await setUp(t)
  const device = loopDevice(t, 'target', MIB)
  const garbage = noise(MIB, 7)
  writeFileSync(device, garbage, { flag: 'r+' })
  await t.rejects(restore(backup, device, { force: true }), {
    code: 'BAD_TARGET',
    message: `${device}: holds 1 MiB, the disk needs 8 MiB`,
  })
  t.ok(readFileSync(device).equals(garbage), 'nothing was written')
  const line = await runCli(['restore', '--force', 'backup.qcow2', device], { cwd: directory })
  t.equal(line.status, 1)
  t.equal(line.stderr, `qcow2-backup: ${device}: holds 1 MiB, the disk needs 8 MiB\n`)

  // The extents of the disk: 320 and 1088 KiB in clusters of 64 KiB, and 5 clusters of metadata.
  for (const how of [{}, { compress: 'zstd' }] as const) {
    await t.rejects(
      fullBackup(disk, device, { ...how, force: true }),
      { code: 'BAD_TARGET', why: /^holds 1 MiB, the image may need 1\.\d+ MiB$/ },
      `an image, ${JSON.stringify(how)}`,
    )
    t.ok(readFileSync(device).equals(garbage), 'nothing was written')
  }
  const image = await runCli(['full', '--force', 'disk.raw', device], { cwd: directory })
  t.equal(image.status, 1)
  t.match(image.stderr, /^qcow2-backup: \S+: holds 1 MiB, the image may need 1\.\d+ MiB\n$/)
})

t.test('a device that is large enough for what a disk holds besides zeroes', SKIP, async (t) => {
  // A device has no holes: how much of it is zero is only known by reading it.
  const directory = t.testdir()
  const content = contentOfParts(8 * MIB, [{ at: MIB, bytes: noise(MIB) }])
  const disk = join(directory, 'disk.raw')
  writeFileSync(disk, content)
  const device = loopDevice(t, 'target', 2 * MIB)
  await fullBackup(disk, device, { force: true })
  t.ok(qemuImgSame({ path: device, format: 'qcow2' }, { path: disk, format: 'raw' }))

  const old = readFileSync(device)
  writeFileSync(disk, noise(2 * MIB), { flag: 'r+' })
  const tooSmall = { code: 'BAD_TARGET', why: /^holds 2 MiB, the image may need / }
  await t.rejects(fullBackup(disk, device, { force: true }), tooSmall)
  t.ok(readFileSync(device).equals(old), 'the image that it holds is as it was')
})

t.test('a device that is too small for an increment, or for an overlay', SKIP, async (t) => {
  const directory = t.testdir()
  const disk = join(directory, 'disk.qcow2')
  qemuImg('create', '-f', 'qcow2', disk, '64M')
  await editBitmap(disk, 'changes', [{ kind: 'add' }])
  const full = join(directory, 'full.qcow2')
  await fullBackup(disk, full)
  run('qemu-io', ['-f', 'qcow2', '-c', 'write -P 5 1M 3M', disk])

  const device = loopDevice(t, 'target', 2 * MIB)
  await fullBackup(full, device, { force: true })
  const old = readFileSync(device)
  const increment = { bitmap: 'changes', backing: full, force: true }
  await t.rejects(incrementalBackup(disk, device, increment), {
    code: 'BAD_TARGET',
    why: /^holds 2 MiB, the image may need 3\.\d+ MiB$/,
  })
  await t.rejects(createSnapshot(disk, device, { clusterSize: 2 * MIB, force: true }), {
    code: 'BAD_TARGET',
    why: /^holds 2 MiB, the overlay may need \d+ MiB$/,
  })
  t.ok(readFileSync(device).equals(old), 'nothing was written')

  await createSnapshot(disk, device, { force: true })
  t.equal(qemuImgCheck(device).status, 0)
})

t.test('a device that is the source, and one without anything in it', SKIP, async (t) => {
  const { backup } = await setUp(t)
  const device = loopDevice(t, 'target', 16 * MIB)
  const same = { code: 'BAD_TARGET', message: `${device}: is the source` }
  await t.rejects(fullBackup(device, device, { force: true }), same)
  run('losetup', ['--detach', device])
  const empty = { code: 'BAD_TARGET', message: `${device}: holds 0 B, the disk needs 8 MiB` }
  await t.rejects(restore(backup, device, { force: true }), empty)
})

t.test('O_DIRECT that cannot be had is an error only if it is insisted on', SKIP, async (t) => {
  const { disk } = await setUp(t)
  const device = loopDevice(t, 'target', 16 * MIB, 4096)
  const clusters = { clusterSize: 512, force: true } as const
  await t.rejects(
    fullBackup(disk, device, { ...clusters, direct: 'on' }),
    { code: 'IO', message: `${device}: open with O_DIRECT: Invalid argument` },
    'clusters are smaller than sectors; the reason was once told twice',
  )
  t.equal((await fullBackup(disk, device, clusters)).direct, false, 'auto does without')
  t.ok(qemuImgSame({ path: device, format: 'qcow2' }, { path: disk, format: 'raw' }))
})
