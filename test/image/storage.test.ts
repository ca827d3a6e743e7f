import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { type OpenFile, openFile } from '../../lib/image/file.ts'
import { findMounted, findShared, requireApart, type StorageFile } from '../../lib/image/storage.ts'
import { NO_LOOP_DEVICES } from '../support/loop.ts'
import { run } from '../support/qemu.ts'

const MIB = 2 ** 20
const SKIP = { skip: NO_LOOP_DEVICES }

function newFile(test: Test, size = 4 * MIB): string {
  const directory = mkdtempSync(join(tmpdir(), 'storage-'))
  test.teardown(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'file')
  writeFileSync(path, '')
  truncateSync(path, size)
  return path
}

function loopOver(test: Test, path: string, ...args: string[]): string {
  const { status, stdout, stderr } = run('losetup', ['--find', '--show', ...args, path])
  if (status !== 0) throw new Error(`losetup ended with ${status}: ${stderr}`)
  const device = stdout.trim()
  test.teardown(() => run('losetup', ['--detach', device]))
  return device
}

async function opened(test: Test, path: string): Promise<OpenFile> {
  const file = await openFile(path)
  test.teardown(() => file.handle.close())
  return file
}

async function shares(test: Test, a: string, b: string): Promise<boolean> {
  const [first, second] = [await opened(test, a), await opened(test, b)]
  const found = await findShared(first, [second])
  test.equal((await findShared(second, [first])) !== undefined, found !== undefined, 'either way')
  return found !== undefined
}

t.test(
  'a loop device shares the storage of its file, and of other loop devices over it',
  SKIP,
  async (t) => {
    const file = newFile(t)
    const loop = loopOver(t, file)
    t.ok(await shares(t, loop, file))
    t.ok(await shares(t, loop, loopOver(t, file)), 'two over one file')
    t.ok(await shares(t, loopOver(t, loop), file), 'one over another')
    t.notOk(await shares(t, loop, newFile(t)))
    t.notOk(await shares(t, loop, loopOver(t, newFile(t))))
    const file2 = await opened(t, file)
    await t.rejects(requireApart(await opened(t, loop), [file2]), {
      code: 'BAD_TARGET',
      message: `${loop}: is on the same storage as ${file}, which is read`,
    })
  },
)

t.test('a file that was renamed or removed under its loop device is found', SKIP, async (t) => {
  const file = newFile(t)
  const open = await opened(t, file)
  const loop = loopOver(t, file)
  rmSync(file)
  writeFileSync(file, 'another file under the name')
  t.ok(await findShared(await opened(t, loop), [open]))
  t.notOk(await shares(t, loop, file))
})

t.test('loop devices over different parts of a file share nothing', SKIP, async (t) => {
  const file = newFile(t)
  const first = loopOver(t, file, '--sizelimit', String(MIB))
  const second = loopOver(t, file, '--offset', String(MIB))
  t.notOk(await shares(t, first, second))
  t.ok(await shares(t, first, file))
  t.ok(await shares(t, second, file))
  t.ok(await shares(t, second, loopOver(t, file, '--offset', String(2 * MIB))), 'overlapping')
})

t.test(
  'a file in a file system of a loop device is gone when what is under that is written to',
  SKIP,
  async (t) => {
    const file = newFile(t, 16 * MIB)
    const mount = join(dirname(file), 'mount')
    mkdirSync(mount)
    t.equal(run('mkfs.ext4', ['-q', file]).status, 0)
    const loop = loopOver(t, file)
    t.equal(run('mount', [loop, mount]).status, 0)
    t.teardown(() => run('umount', [mount]))
    writeFileSync(join(mount, 'disk'), 'a disk')
    writeFileSync(join(mount, 'other'), 'another file')
    const disk = await opened(t, join(mount, 'disk'))
    t.ok(await findShared(await opened(t, loop), [disk]), 'the device is written to')
    t.ok(await findShared(await opened(t, file), [disk]), 'its file is')
    t.notOk(await findShared(disk, [await opened(t, loop)]), 'a file is, the device read')
    t.notOk(await shares(t, join(mount, 'disk'), join(mount, 'other')))

    const [apart, device, under] = [newFile(t), loop, file].map((path) => opened(t, path))
    t.equal(await findMounted([await apart, disk, await device]), await device)
    t.equal(await findMounted([await under, await apart]), await under)
    t.equal(await findMounted([disk, await apart]), undefined)
  },
)

/** sysfs with some devices: what each has in its folder. */
function sysfs(
  test: Test,
  devices: Record<string, { files?: Record<string, string>; parent?: string; slaves?: string[] }>,
): string {
  const sys = test.testdir({ dev: { block: {} }, devices: {} })
  for (const [number, { files = {}, parent }] of Object.entries(devices)) {
    const folder = join(sys, 'devices', parent ?? '', number)
    mkdirSync(join(folder, 'slaves'), { recursive: true })
    writeFileSync(join(folder, 'dev'), `${number}\n`)
    for (const [name, content] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, name)), { recursive: true })
      writeFileSync(join(folder, name), `${content}\n`)
    }
    symlinkSync(folder, join(sys, 'dev/block', number))
  }
  for (const [number, { slaves = [] }] of Object.entries(devices)) {
    for (const slave of slaves) {
      symlinkSync(join(sys, 'dev/block', slave), join(sys, 'dev/block', number, 'slaves', slave))
    }
  }
  return sys
}

/** A block device as far as a stat of it tells. */
function device(number: string): StorageFile {
  const [major, minor] = number.split(':').map(BigInt)
  const rdev = (major << 8n) | minor
  const stats = { rdev, dev: 5n, ino: 1n, isBlockDevice: () => true }
  return { identity: `rdev:${rdev}`, handle: { stat: async () => stats } as never }
}

t.test('partitions, device-mapper, md and paths of one disk, as sysfs has them', async (t) => {
  const partition = (n: number, start: number, size: number) => ({
    parent: '8:0',
    files: { partition: String(n), start: String(start), size: String(size) },
  })
  const lvm = (...slaves: string[]) => ({ files: { 'dm/uuid': 'LVM-abc' }, slaves })
  const sys = sysfs(t, {
    '8:0': { files: { wwid: 'naa.5000c500a1b2c3d4' } },
    '8:1': partition(1, 2048, 4096),
    '8:2': partition(2, 6144, 4096),
    '8:16': {},
    '8:32': { files: { 'device/wwid': 'naa.5000c500a1b2c3d4' } },
    '8:48': { files: { wwid: 't10.ATA QEMU HARDDISK' } },
    '8:64': { files: { wwid: 't10.ATA QEMU HARDDISK' } },
    '253:0': lvm('8:1'),
    '253:1': lvm('8:1'),
    '253:2': { files: { 'dm/uuid': 'CRYPT-LUKS2-abc' }, slaves: ['253:0'] },
    '253:3': { slaves: ['8:16'] },
    '253:4': { slaves: ['8:16'] },
    '253:5': { files: { 'dm/uuid': 'part1-x' }, slaves: ['8:16'] },
    '253:6': { files: { 'dm/uuid': 'part2-x' }, slaves: ['8:16'] },
    '9:0': { slaves: ['8:2', '8:16'] },
  })
  const cases: [string, string, boolean, string][] = [
    ['8:0', '8:1', true, 'a disk and its partition'],
    ['8:1', '8:2', false, 'two partitions'],
    ['253:0', '8:1', true, 'a logical volume and its physical one'],
    ['253:0', '8:0', true, 'and the disk under that'],
    ['253:0', '253:1', false, 'two logical volumes'],
    ['253:0', '8:2', false, 'another partition'],
    ['253:2', '253:0', true, 'LUKS and the volume under it'],
    ['253:2', '253:1', false, 'LUKS and another volume'],
    ['253:2', '8:0', true, 'three floors down'],
    ['253:3', '253:4', true, 'two of unknown tables over one disk'],
    ['253:5', '253:6', false, 'two partitions by kpartx'],
    ['253:5', '8:16', true, 'one of them and the disk'],
    ['9:0', '8:16', true, 'md and a member'],
    ['9:0', '8:0', true, 'md and the disk of a member'],
    ['9:0', '8:1', false, 'md and a partition that is no member'],
    ['8:32', '8:1', true, 'a partition, and its disk by another path'],
    ['8:48', '8:64', false, 'names that are not unique in the world'],
  ]
  for (const [a, b, expected, name] of cases) {
    t.equal((await findShared(device(a), [device(b)], sys)) !== undefined, expected, name)
    t.equal(
      (await findShared(device(b), [device(a)], sys)) !== undefined,
      expected,
      `${name}, reversed`,
    )
  }
})
