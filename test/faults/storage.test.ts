/** No command writes to storage that it reads, by whatever name it is given. */
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { runCli } from '../support/cli.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { NO_LOOP_DEVICES } from '../support/loop.ts'
import { qemuImg, qemuIo, run } from '../support/qemu.ts'
import { skipUnlessRoot } from '../support/root.ts'

t.setTimeout(1_800_000)

const MIB = 2 ** 20
const SKIP = { skip: NO_LOOP_DEVICES }
const AS_ROOT = { skip: skipUnlessRoot('act as another user') }

/** A raw disk, an image over it that holds a bitmap, and a backup. */
function setUp(test: Test): string {
  const cwd = test.testdir()
  makeRaw(join(cwd, 'base.raw'), 4 * MIB, [{ at: 0, bytes: noise(MIB) }])
  qemuImg(
    'create',
    '-q',
    '-f',
    'qcow2',
    '-b',
    join(cwd, 'base.raw'),
    '-F',
    'raw',
    join(cwd, 'disk.qcow2'),
  )
  qemuImg('bitmap', '--add', join(cwd, 'disk.qcow2'), 'b')
  qemuIo(join(cwd, 'disk.qcow2'), 'write -P 7 64k 64k')
  qemuImg('convert', '-O', 'qcow2', join(cwd, 'disk.qcow2'), join(cwd, 'backup.qcow2'))
  // Loop devices hold whole sectors.
  truncateSync(join(cwd, 'disk.qcow2'), MIB)
  return cwd
}

function loopOver(test: Test, path: string): string {
  const { status, stdout, stderr } = run('losetup', ['--find', '--show', path])
  if (status !== 0) throw new Error(`losetup ended with ${status}: ${stderr}`)
  test.teardown(() => run('losetup', ['--detach', stdout.trim()]))
  return stdout.trim()
}

/** Runs a command that is to be refused, and leave every file as it is. */
async function refused(test: Test, cwd: string, args: string[], line: RegExp): Promise<void> {
  const names = readdirSync(cwd).filter((name) => !name.endsWith('.fifo'))
  const before = names.map((name) => readFileSync(join(cwd, name)))
  const { status, stderr } = await runCli(args, { cwd })
  test.match(stderr, line, args.join(' '))
  test.equal(status, 1, args.join(' '))
  test.notMatch(stderr, /--force/, `${args.join(' ')}: no hint that does harm`)
  test.strictSame(readdirSync(cwd).sort(), names.sort(), 'no other file')
  for (const [i, name] of names.entries()) {
    test.ok(
      readFileSync(join(cwd, name)).equals(before[i]),
      `${args.join(' ')}: ${name} is as it was`,
    )
  }
}

t.test('a loop device over what is read is not a target', SKIP, async (t) => {
  const cwd = setUp(t)
  const same = /: is on the same storage as .*, which is read\n$/
  const [base, disk, backup] = ['base.raw', 'disk.qcow2', 'backup.qcow2'].map((name) =>
    loopOver(t, join(cwd, name)),
  )
  for (const force of [[], ['--force']]) {
    await refused(t, cwd, ['full', 'base.raw', base, ...force], same)
    await refused(t, cwd, ['full', base, 'base.raw', ...force], same)
    await refused(t, cwd, ['full', 'disk.qcow2', base, ...force], same)
    await refused(t, cwd, ['restore', 'backup.qcow2', backup, ...force], same)
    await refused(t, cwd, ['restore', backup, 'backup.qcow2', ...force], same)
    const incremental = ['incremental', 'disk.qcow2', '--bitmap', 'b', '--backing', 'backup.qcow2']
    for (const target of [base, disk, backup]) {
      await refused(t, cwd, [...incremental, target, ...force], same)
    }
    await refused(t, cwd, ['snapshot', 'disk.qcow2', disk, ...force], same)
  }
  await refused(t, cwd, ['diff', 'disk.qcow2', disk, '--bitmap', 'd', '--allow-path', cwd], same)
  await refused(
    t,
    cwd,
    ['diff', disk, 'base.raw', '--merge-into', 'disk.qcow2', '--bitmap', 'd', '--allow-path', cwd],
    same,
  )
  await refused(
    t,
    cwd,
    ['bitmap', '--merge', 'b', '-b', disk, '-F', 'qcow2', 'disk.qcow2', 'b'],
    /same storage/,
  )
})

t.test('diff --output takes the place of nothing that it reads', async (t) => {
  const cwd = setUp(t)
  for (const output of ['disk.qcow2', 'backup.qcow2', 'base.raw']) {
    const args = ['diff', 'disk.qcow2', 'backup.qcow2', '--output', output]
    await refused(t, cwd, args, new RegExp(`${output}: is the source`))
    await refused(t, cwd, [...args, '--force'], new RegExp(`${output}: is the source`))
  }
  qemuImg('create', '-q', '-f', 'qcow2', join(cwd, 'other.qcow2'), '1M')
  const other = ['diff', 'disk.qcow2', 'backup.qcow2', '--output', 'other.qcow2', '--force']
  await refused(t, cwd, other, /other.qcow2: exists and contains a qcow2 image/)
})

t.test('images replace images only, and offer nothing else', SKIP, async (t) => {
  const cwd = setUp(t)
  makeRaw(join(cwd, 'precious.raw'), MIB, [{ at: 0, bytes: noise(1000) }])
  const incremental = ['incremental', 'disk.qcow2', '--bitmap', 'b', '--backing', 'backup.qcow2']
  for (const args of [['full', 'backup.qcow2'], incremental, ['snapshot', 'disk.qcow2']]) {
    for (const force of [[], ['--force']]) {
      await refused(
        t,
        cwd,
        [...args, 'precious.raw', ...force],
        /precious.raw: .* not a qcow2 image/,
      )
    }
  }
  writeFileSync(join(cwd, 'empty'), '')
  const { status, stderr } = await runCli(['full', 'base.raw', 'empty', '--force'], { cwd })
  t.equal(status, 0, stderr)

  const signatures: [string, (file: string) => void][] = [
    ['an ext2, ext3 or ext4 file system', (file) => void run('mkfs.ext4', ['-q', file])],
    ['swap space', (file) => void run('mkswap', [file])],
    ['an MBR partition table', (file) => write(file, 510, '55aa')],
    ['a GPT', (file) => write(file, 512, Buffer.from('EFI PART').toString('hex'))],
    ['a LUKS volume', (file) => write(file, 0, '4c554b53babe')],
    ['an LVM physical volume', (file) => write(file, 512, Buffer.from('LABELONE').toString('hex'))],
  ]
  for (const [name, make] of signatures) {
    const file = makeRaw(join(t.testdirName, 'device'), 8 * MIB, [])
    make(file)
    const device = loopOver(t, file)
    for (const force of [[], ['--force']]) {
      await refused(
        t,
        cwd,
        ['full', 'base.raw', device, ...force],
        new RegExp(`: contains ${name}; `),
      )
    }
    run('losetup', ['--detach', device])
  }
})

function write(file: string, at: number, hex: string): void {
  const bytes = readFileSync(file)
  Buffer.from(hex, 'hex').copy(bytes, at)
  writeFileSync(file, bytes)
}

t.test("other users' links in sticky directories are not followed", AS_ROOT, async (t) => {
  const cwd = setUp(t)
  const sticky = join(cwd, 'sticky')
  mkdirSync(join(cwd, 'private'))
  mkdirSync(sticky)
  chmodSync(sticky, 0o1777)
  const link = (name: string, to: string) =>
    run('setpriv', [
      ...['--reuid=65534', '--regid=65534', '--clear-groups'],
      'ln',
      '-s',
      to,
      join(sticky, name),
    ])
  t.equal(link('out', join(cwd, 'private/file')).status, 0)
  link('directory', join(cwd, 'private'))
  link('image.manifest.json', join(cwd, 'private/manifest'))
  chownSync(cwd, 0, 0)
  symlinkSync(join(sticky, 'out'), join(cwd, 'own'))
  const why = /: is a symbolic link of another user in a sticky directory, not followed/
  for (const [args, target] of [
    [['full', 'base.raw'], 'sticky/out'],
    [['restore', 'backup.qcow2'], 'sticky/out'],
    [['restore', 'backup.qcow2'], 'own'],
    [['restore', 'backup.qcow2'], 'sticky/directory/file'],
    [['snapshot', 'disk.qcow2'], 'sticky/out'],
    [['diff', 'disk.qcow2', 'backup.qcow2', '--output'], 'sticky/out'],
    [['full', '--manifest', 'base.raw'], 'sticky/image'],
  ] as const) {
    const { status, stderr } = await runCli([...args, target], { cwd })
    t.match(stderr, why, `${args.join(' ')} ${target}`)
    t.equal(status, 1)
  }
  t.strictSame(readdirSync(join(cwd, 'private')), [])
  t.notOk(existsSync(join(sticky, 'image')), 'no image without its manifest')

  // Our own are, and those in directories that are not shared.
  symlinkSync(join(cwd, 'private/ours'), join(sticky, 'ours'))
  const { status, stderr } = await runCli(['restore', 'backup.qcow2', 'sticky/ours'], { cwd })
  t.equal(status, 0, stderr)
  t.ok(existsSync(join(cwd, 'private/ours')))
})
