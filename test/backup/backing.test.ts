import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
} from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  type CustomSource,
  fullBackup,
  type IncrementalOptions,
  incrementalBackup,
  restore,
} from '../../lib/index.ts'
import { poke } from '../support/patch.ts'
import { qemuImg, qemuImgInfo, qemuImgSame, qemuIo } from '../support/qemu.ts'

/** A disk with a bitmap `b0` that began with the backup `full.qcow2`, and a change since. */
async function setUp(t: Test) {
  const directory = t.testdir()
  const at = (name: string) => join(directory, name)
  const disk = at('disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', disk, '1M')
  qemuIo(disk, 'write -P 1 0 512k')
  await fullBackup(disk, at('full.qcow2'))
  qemuImg('bitmap', '--add', disk, 'b0')
  qemuIo(disk, 'write -P 2 0 64k', 'write -z 64k 64k')
  const backup = (options: Partial<IncrementalOptions> = {}, target = at('inc.qcow2')) =>
    incrementalBackup(disk, target, { bitmap: 'b0', backing: at('full.qcow2'), ...options })
  return { directory, at, disk, backup }
}

/** What the image records, which has to be enough for QEMU and for us. */
async function recorded(t: Test, target: string, disk: string, allowPaths?: string[]) {
  const same = qemuImgSame({ path: target, format: 'qcow2' }, { path: disk, format: 'qcow2' })
  t.ok(same, 'QEMU follows it')
  const raw = `${target}.raw`
  await restore(target, raw, { allowPaths })
  t.ok(qemuImgSame({ path: raw, format: 'raw' }, { path: disk, format: 'qcow2' }), 'so do we')
  rmSync(raw)
  const info = qemuImgInfo(target)
  return [info['backing-filename'], info['backing-filename-format']]
}

t.test('the name is relative to the target, wherever we run', async (t) => {
  const { at, disk, backup, directory } = await setUp(t)
  await backup()
  t.strictSame(await recorded(t, at('inc.qcow2'), disk), ['full.qcow2', 'qcow2'])

  mkdirSync(at('deep/er'), { recursive: true })
  await backup({}, at('deep/er/inc.qcow2'))
  const far = await recorded(t, at('deep/er/inc.qcow2'), disk, [directory])
  t.strictSame(far, ['../../full.qcow2', 'qcow2'])

  mkdirSync(at('moved'))
  for (const name of ['full.qcow2', 'inc.qcow2']) renameSync(at(name), at(`moved/${name}`))
  t.strictSame(await recorded(t, at('moved/inc.qcow2'), disk), ['full.qcow2', 'qcow2'])
})

t.test('links are followed before the name is recorded', async (t) => {
  const { at, disk, backup } = await setUp(t)
  symlinkSync('full.qcow2', at('latest'))
  await backup({ backing: at('latest') })
  t.strictSame(await recorded(t, at('inc.qcow2'), disk), ['full.qcow2', 'qcow2'])

  mkdirSync(at('store'))
  symlinkSync('store/there.qcow2', at('here.qcow2'))
  await backup({}, at('here.qcow2'))
  t.strictSame(qemuImgInfo(at('store/there.qcow2'))['backing-filename'], '../full.qcow2')
})

t.test('a backing name that QEMU would take for a protocol is recorded with ./', async (t) => {
  const { at, disk, backup } = await setUp(t)
  renameSync(at('full.qcow2'), at('nbd:full.qcow2'))
  await backup({ backing: at('nbd:full.qcow2') })
  t.strictSame(await recorded(t, at('inc.qcow2'), disk), ['./nbd:full.qcow2', 'qcow2'])
})

t.test('a raw backup is built on if its format is given', async (t) => {
  const { at, disk, backup } = await setUp(t)
  await restore(at('full.qcow2'), at('full.raw'))
  const why = /^is not in qcow2 format$/
  await t.rejects(backup({ backing: at('full.raw') }), { code: 'BAD_IMAGE', why })
  await backup({ backing: at('full.raw'), backingFormat: 'raw' })
  t.strictSame(await recorded(t, at('inc.qcow2'), disk), ['full.raw', 'raw'])
  // A guest can write anything to the start of its disk.
  const magic = { code: 'BAD_IMAGE', what: at('full.qcow2'), why: /^looks like a qcow2 image/ }
  await t.rejects(backup({ backingFormat: 'raw', force: true }), magic)
})

t.test('an unfit backing file is refused before a byte is written', async (t) => {
  const { directory, at, disk, backup } = await setUp(t)
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'full.qcow2', '-F', 'qcow2', at('mid.qcow2'))
  qemuImg('create', '-q', '-f', 'qcow2', '-b', disk, '-F', 'qcow2', at('snapshot.qcow2'))
  mkdirSync(at('other'))
  copyFileSync(at('full.qcow2'), at('other/full.qcow2'))
  const apart = ['-u', '-b', 'other/full.qcow2', '-F', 'qcow2', at('apart.qcow2'), '1M']
  qemuImg('create', '-q', '-f', 'qcow2', ...apart)
  const lost = ['-u', '-b', 'lost.qcow2', '-F', 'qcow2', at('broken.qcow2'), '1M']
  qemuImg('create', '-q', '-f', 'qcow2', ...lost)
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'full.qcow2', '-F', 'qcow2', at('vague.qcow2'))
  // The first header extension, the backing file's format, becomes one that nobody knows.
  poke(at('vague.qcow2'), 112, 0x12345678)
  copyFileSync(at('full.qcow2'), at('cut.qcow2'))
  truncateSync(at('cut.qcow2'), 131072)
  linkSync(at('full.qcow2'), at('linked.qcow2'))
  symlinkSync('full.qcow2', at('soft.qcow2'))

  type Case = [Partial<IncrementalOptions>, string | undefined, object]
  const usage = (what: string, why: RegExp) => ({ code: 'USAGE', what, why })
  const cases: Case[] = [
    [{ bitmap: '' }, undefined, usage('bitmap', /^missing; /)],
    [{ backing: '' }, undefined, usage('backing', /^the name is empty/)],
    [{ backing: at('none') }, undefined, { code: 'IO', what: at('none'), errno: 'ENOENT' }],
    [{ backing: directory }, undefined, { code: 'IO', errno: 'EISDIR' }],
    [{ backing: 'nbd://localhost/x' }, undefined, { code: 'IO', errno: 'ENOENT' }],
    [{ backing: disk }, undefined, usage('backing', /disk\.qcow2 is part of the source/)],
    [
      { backing: at('snapshot.qcow2') },
      undefined,
      usage('backing', /snapshot\.qcow2 builds on .*disk\.qcow2, which is part of the source/),
    ],
    [{ backing: at('broken.qcow2') }, undefined, { code: 'IO', what: at('lost.qcow2') }],
    [{ backing: at('vague.qcow2') }, undefined, { code: 'NOT_ALLOWED', hint: 'backingFormat' }],
    [{ backing: at('apart.qcow2') }, undefined, { code: 'NOT_ALLOWED', hint: 'allowPaths' }],
    [{ backing: at('cut.qcow2') }, undefined, { code: 'BAD_IMAGE', what: at('cut.qcow2') }],
    [{ bitmap: 'b1' }, undefined, { code: 'BAD_BITMAP', what: disk, why: /it has 'b0'$/ }],
    [{ force: true }, at('full.qcow2'), { code: 'BAD_TARGET', why: 'is its own backing file' }],
    [{ force: true }, at('soft.qcow2'), { code: 'BAD_TARGET', why: 'is its own backing file' }],
    [{ force: true }, at('linked.qcow2'), { code: 'BAD_TARGET', what: at('linked.qcow2') }],
    [
      { backing: at('mid.qcow2'), force: true },
      at('full.qcow2'),
      { code: 'BAD_TARGET', why: `is a backing file of ${at('mid.qcow2')}` },
    ],
    [{ force: true }, disk, { code: 'BAD_TARGET', why: 'is the source' }],
    [{}, at('mid.qcow2'), { code: 'TARGET_EXISTS' }],
  ]
  const before = readdirSync(directory).sort()
  const full = readFileSync(at('full.qcow2'))
  for (const [options, target, error] of cases) {
    const told = `${JSON.stringify(options)} ${target}`
    await t.rejects(backup(options, target), { name: 'BackupError', ...error }, told)
  }
  t.strictSame(readdirSync(directory).sort(), before)
  t.ok(readFileSync(at('full.qcow2')).equals(full))
  await t.resolves(backup({ backing: at('apart.qcow2'), allowPaths: [at('other')] }))
})

t.test('backing names that are too long to record are refused', async (t) => {
  const { at, backup } = await setUp(t)
  const deep = at(Array.from({ length: 6 }, () => 'd'.repeat(200)).join('/'))
  mkdirSync(deep, { recursive: true })
  const backing = join(deep, 'full.qcow2')
  copyFileSync(at('full.qcow2'), backing)
  const why = /^the name of .* is too long to be recorded, more than 1023 bytes$/
  await t.rejects(backup({ backing }), { code: 'BAD_TARGET', what: at('inc.qcow2'), why })
  const near = join(deep, 'inc.qcow2')
  await backup({ backing }, near)
  t.equal(qemuImgInfo(near)['backing-filename'], 'full.qcow2')

  const longer = at(`${'y'.repeat(200)}`)
  mkdirSync(longer)
  copyFileSync(at('full.qcow2'), join(longer, `${'x'.repeat(240)}.qcow2`))
  const options = { backing: join(longer, `${'x'.repeat(240)}.qcow2`), clusterSize: 512 }
  await t.rejects(backup(options), { code: 'IO', errno: 'ENAMETOOLONG' }, 'in clusters of 512')
  t.notOk(existsSync(at('inc.qcow2')))
})

t.test('a previous backup that is replaced, cut or removed while it is built on', async (t) => {
  const size = 4 * 2 ** 20
  const changes: [
    string,
    (backing: string) => void,
    { code: string; why?: string | RegExp; errno?: string },
  ][] = [
    [
      'replaced',
      (path) => {
        renameSync(path, `${path}.old`)
        copyFileSync(`${path}.old`, path)
      },
      { code: 'SOURCE_CHANGED', why: 'was replaced while an image was made over it' },
    ],
    ['cut', (path) => truncateSync(path, 65536), { code: 'SOURCE_CHANGED', why: /^shrank/ }],
    ['removed', (path) => rmSync(path), { code: 'IO', errno: 'ENOENT' }],
  ]
  for (const [name, change, error] of changes) {
    const directory = t.testdir({ targets: {} })
    const backing = join(directory, 'full.qcow2')
    const custom: CustomSource = {
      name: 'disk',
      size,
      extents: () => [{ start: 0, length: size, zero: false, dirty: true }],
      read: async (_start, length) => Buffer.alloc(length, 1),
    }
    await fullBackup(custom, backing)
    let changed = false
    const changing: CustomSource = {
      ...custom,
      async read(start, length, signal) {
        if (!changed) change(backing)
        changed = true
        return custom.read(start, length, signal)
      },
    }
    const target = join(directory, 'targets', 'increment.qcow2')
    await t.rejects(incrementalBackup(changing, target, { backing }), error, name)
    t.strictSame(readdirSync(join(directory, 'targets')), [])
  }
})
