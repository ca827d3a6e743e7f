/** Sources that cannot be read, or change while they are. */
import { spawnSync } from 'node:child_process'
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  readdirSync,
  readFileSync,
  renameSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { fullBackup } from '../../lib/index.ts'
import { CLI, runCli } from '../support/cli.ts'
import { makeRaw, noise, prose } from '../support/disks.ts'
import { effort, someOf } from '../support/effort.ts'
import { loopDevice, NO_LOOP_DEVICES } from '../support/loop.ts'
import { meanwhile } from '../support/meanwhile.ts'
import { sizeOf } from '../support/patch.ts'
import { qemuImg, qemuImgCheck, qemuImgInfo, qemuImgSame, qemuIo, run } from '../support/qemu.ts'
import { unprivileged } from '../support/unprivileged.ts'

const MIB = 2 ** 20
/** Only an image may be replaced by one. */
const OLD = Buffer.from('QFI\xfbwhat stood there', 'latin1')

/** Every command that reads a source refuses one with this line, and makes nothing. */
async function refused(test: Test, cwd: string, source: string, line: string): Promise<void> {
  const before = readdirSync(cwd)
  for (const args of [
    ['full', source, 'target'],
    ['extents', source],
  ]) {
    const { status, stdout, stderr } = await runCli(args, { cwd })
    test.equal(stderr, `qcow2-backup: ${line}\n`)
    test.equal(status, 1, args[0])
    test.equal(stdout, '')
  }
  test.strictSame(readdirSync(cwd), before)
}

t.test('what is no disk is refused as a source', async (t) => {
  const cwd = t.testdir({ directory: {}, file: 'x', loop: t.fixture('symlink', 'loop') })
  spawnSync('mkfifo', [join(cwd, 'fifo')])
  await refused(t, cwd, 'none', 'none: no such file or directory')
  await refused(t, cwd, 'directory', 'directory: is a directory')
  await refused(t, cwd, 'file/disk', 'file/disk: a part of the path is not a directory')
  await refused(t, cwd, 'loop', 'loop: too many symbolic links')
  await refused(t, cwd, 'fifo', 'fifo: is neither a regular file nor a block device')
  await refused(t, cwd, '/dev/zero', '/dev/zero: is neither a regular file nor a block device')
})

t.test('a source that may not be read is refused', async (t) => {
  const cwd = t.testdir({ 'disk.raw': 'x'.repeat(512), closed: { disk: 'x' } })
  chmodSync(join(cwd, 'disk.raw'), 0)
  chmodSync(join(cwd, 'closed'), 0)
  for (const source of ['disk.raw', 'closed/disk']) {
    const [command, ...args] = unprivileged([process.execPath, CLI, 'full', source, 'target'])
    const { status, stderr } = spawnSync(command, args, { cwd, encoding: 'utf8' })
    t.equal(stderr, `qcow2-backup: ${source}: permission denied\n`)
    t.equal(status, 1)
  }
  chmodSync(join(cwd, 'closed'), 0o700)
  t.strictSame(readdirSync(cwd), ['closed', 'disk.raw'])
})

t.test('an empty file is a disk of 0 bytes', async (t) => {
  const cwd = t.testdir({ 'disk.raw': '' })
  const { status, stdout, stderr } = await runCli(['full', 'disk.raw', 'b.qcow2', '--json'], {
    cwd,
  })
  t.equal(status, 0, stderr)
  t.match(JSON.parse(stdout), { virtualSize: 0, dataBytes: 0, zeroBytes: 0 })
  t.equal(qemuImgInfo(join(cwd, 'b.qcow2'))['virtual-size'], 0)
  t.equal(qemuImgCheck(join(cwd, 'b.qcow2')).status, 0)
  const back = await runCli(['restore', 'b.qcow2', 'back.raw'], { cwd })
  t.equal(back.status, 0, back.stderr)
  t.equal(sizeOf(join(cwd, 'back.raw')), 0)
  t.equal((await runCli(['extents', 'disk.raw'], { cwd })).stdout, '[]\n')
})

t.test('a disk that changes its size while it is read fails the copy', async (t) => {
  const bytes = noise(16 * MIB)
  const setUp = (t: Test) => {
    const cwd = t.testdir()
    writeFileSync(join(cwd, 'target'), OLD)
    return { cwd, disk: makeRaw(join(cwd, 'disk.raw'), bytes.length, [{ at: 0, bytes }]) }
  }
  const shrank =
    /^qcow2-backup: disk\.raw: (ends at or before offset \d+: it shrank while it was read|shrank from 16777216 to \d+ bytes while it was read)$/
  const changes: [string, (disk: string) => void, RegExp][] = [
    ['shrinks to 1 MiB', (disk) => truncateSync(disk, MIB), shrank],
    ['shrinks to an odd size', (disk) => truncateSync(disk, 12 * MIB + 100), shrank],
    ['shrinks by a byte', (disk) => truncateSync(disk, 16 * MIB - 1), shrank],
    [
      'grows',
      (disk) => appendFileSync(disk, 'more'),
      /^qcow2-backup: disk\.raw: grew from 16777216 to 16777220 bytes while it was read$/,
    ],
  ]
  const commands = [['full'], ['restore', '-f', 'raw', '--engine', 'threads', '--direct', 'off']]
  for (const [index, [how, action, line]] of changes.entries()) {
    for (const command of someOf(commands, index)) {
      const args = [...command, '--force', 'disk.raw', 'target']
      await t.test(`${args.join(' ')}: ${how}`, async (t) => {
        const { cwd, disk } = setUp(t)
        const result = await meanwhile(cwd, args, () => action(disk))
        t.match(result.line, line)
        t.equal(result.status, 1)
        t.ok(readFileSync(join(cwd, 'target')).equals(OLD), 'what stood there stays')
        t.strictSame(readdirSync(cwd), ['disk.raw', 'target'])
      })
    }
  }

  await t.test('a file that takes its name is none of our business', async (t) => {
    const { cwd, disk } = setUp(t)
    const result = await meanwhile(cwd, ['full', '--force', 'disk.raw', 'target'], () => {
      renameSync(disk, join(cwd, 'moved.raw'))
      writeFileSync(disk, 'another')
    })
    t.equal(result.status, 0)
    const moved = { path: join(cwd, 'moved.raw'), format: 'raw' }
    t.ok(qemuImgSame({ path: join(cwd, 'target'), format: 'qcow2' }, moved))
  })
})

t.test('a qcow2 source that shrinks while it is read fails the copy', async (t) => {
  const cwd = t.testdir()
  const disk = makeRaw(join(cwd, 'disk.raw'), 16 * MIB, [{ at: 0, bytes: noise(16 * MIB) }])
  for (const options of ['compat=1.1', 'extended_l2=on']) {
    qemuImg('convert', '-O', 'qcow2', '-f', 'raw', '-o', options, disk, join(cwd, 'disk.qcow2'))
    const result = await meanwhile(cwd, ['full', 'disk.qcow2', 'target'], () =>
      truncateSync(join(cwd, 'disk.qcow2'), 5 * MIB),
    )
    t.match(result.line, /^qcow2-backup: disk\.qcow2: ends at or before offset \d+: it shrank/)
    t.equal(result.status, 1)
    t.strictSame(readdirSync(cwd), ['disk.qcow2', 'disk.raw'])
  }
})

t.test('a device that cannot be read from some place on', { skip: NO_LOOP_DEVICES }, async (t) => {
  const ways = [
    ['--direct', 'on'],
    ['--direct', 'off'],
    ['--engine', 'threads'],
    ['--compress', 'zstd'],
  ]
  for (const how of effort(ways.slice(0, 2), ways)) {
    const cwd = t.testdir()
    writeFileSync(join(cwd, 'target'), OLD)
    const device = loopDevice(t, 'source', 16 * MIB)
    const content = noise(16 * MIB)
    writeFileSync(device, content, { flag: 'r+' })
    // The loop device keeps its size, and answers EIO where its file has ended.
    run('sync', [])
    truncateSync(join(cwd, 'source.device'), 4 * MIB)
    const args = ['full', '--force', ...how, device, 'target']
    const { status, stderr } = await runCli(args, { cwd })
    t.equal(status, 1)
    t.match(stderr, /^qcow2-backup: \/dev\/loop\d+: read at \d+: input\/output error\n$/)
    const at = Number(/read at (\d+)/.exec(stderr)?.[1])
    t.ok(at >= 4 * MIB && at < 16 * MIB, `at ${at}`)
    t.ok(readFileSync(join(cwd, 'target')).equals(OLD), 'what stood there stays')

    // What ends before that place is read all the same.
    const small = await runCli(['extents', device], { cwd })
    t.equal(small.status, 0, small.stderr)
    const zeroes = await runCli(['extents', '--detect-zeroes', device], { cwd })
    t.equal(zeroes.status, 1)
    t.equal(zeroes.stderr, `qcow2-backup: ${device}: input/output error\n`)
    run('losetup', ['--detach', device])
  }
})

/** Where an image is cut: every table and the clusters between, and at odd places. */
function cuts(size: number, count: number): number[] {
  const at = new Set([0, 1, 3, 4, 71, 72, 103, 104, 111, 112, 512, size - 512, size - 1, size])
  for (let i = 1; i < count; i++) at.add(Math.floor((size * i) / count / 512) * 512 + (i % 3) * 17)
  return [...at].filter((cut) => cut >= 0 && cut <= size).sort((a, b) => a - b)
}

for (const [kind, options] of Object.entries({
  'made by qemu-img': [],
  'with small clusters': ['-o', 'cluster_size=4k'],
  compressed: ['-c'],
  'compressed with zstd': ['-c', '-o', 'compression_type=zstd'],
  'of version 2': ['-o', 'compat=0.10'],
  'with extended L2': ['-o', 'extended_l2=on'],
  'made by us': undefined,
  'made by us, compressed': undefined,
})) {
  t.test(`a qcow2 file cut short, ${kind}`, async (t) => {
    const directory = t.testdir()
    const at = (name: string) => join(directory, name)
    const disk = makeRaw(at('disk.raw'), 4 * MIB, [
      { at: 0, bytes: noise(100_000) },
      { at: MIB, bytes: prose(700_000) },
      { at: 3 * MIB, bytes: noise(200_000, 2) },
      { at: 4 * MIB - 5000, bytes: noise(5000, 3) },
    ])
    if (options) {
      qemuImg('convert', '-f', 'raw', '-O', 'qcow2', ...options, disk, at('whole.qcow2'))
    } else {
      const compress = kind.endsWith('compressed') ? 'zlib' : undefined
      await fullBackup(disk, at('whole.qcow2'), { compress })
    }
    const size = sizeOf(at('whole.qcow2'))
    const clusterSize = qemuImgInfo(at('whole.qcow2'))['cluster-size']!
    // A cluster of data that ends with the file may be cut short, and reads as zero there.
    const lastCluster = size - (size % clusterSize || clusterSize)
    let right = 0
    let failed = 0
    for (const cut of cuts(size, effort(8, 24))) {
      copyFileSync(at('whole.qcow2'), at('cut.qcow2'))
      truncateSync(at('cut.qcow2'), cut)
      const source = { format: 'qcow2', force: true } as const
      const error = await fullBackup(at('cut.qcow2'), at('copy.qcow2'), source).catch((e) => e)
      if (error instanceof Error) {
        failed++
        t.match(error, { name: 'BackupError', what: at('cut.qcow2') }, `cut at ${cut}`)
        continue
      }
      const copy = { path: at('copy.qcow2'), format: 'qcow2' }
      t.ok(qemuImgSame(copy, { path: at('cut.qcow2'), format: 'qcow2' }), `${cut}: as QEMU says`)
      if (qemuImgSame(copy, { path: disk, format: 'raw' })) right++
      else t.ok(cut > lastCluster, `cut at ${cut} of ${size}: its last cluster is short`)
    }
    t.ok(right >= 1 && failed >= effort(10, 20), `${right} right, ${failed} refused`)
  })
}

t.test('a cut L2 table once let the backing file show through', async (t) => {
  const directory = t.testdir()
  const base = makeRaw(join(directory, 'base.raw'), 600 * MIB, [
    { at: 400 * MIB, bytes: noise(65536) },
  ])
  const image = join(directory, 'top.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', '-b', base, '-F', 'raw', image)
  // A zero cluster takes no room: its table is the last thing in the file.
  qemuIo(image, 'write -z -u 400M 64k')
  const size = sizeOf(image)
  for (const cut of [size - 1, size - 8192, size - 32768, size - 65536]) {
    truncateSync(image, cut)
    await t.rejects(fullBackup(image, join(directory, 'copy.qcow2')), {
      code: 'BAD_IMAGE',
      what: image,
      why: /^guest offset 0x0: L2 table at 0x[0-9a-f]+ (is|reaches) past the end of the file$/,
    })
  }
})
