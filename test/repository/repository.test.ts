/** A repository's files: broken, hostile and foreign ones. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { backupMachine, listRepository, restoreMachine } from '../../lib/index.ts'
import { RestingMachine } from '../support/repository.ts'

t.setTimeout(900_000)

async function setUp(test: Test): Promise<RestingMachine> {
  const m = new RestingMachine(test)
  m.write(1)
  await backupMachine(m.machine, m.repository, { name: 'web', checkpoint: 'p0' })
  return m
}

const again = (m: RestingMachine) => backupMachine(m.machine, m.repository, { name: 'web' })

/** Changes a record. */
function edit(m: RestingMachine, change: (record: Record<string, unknown>) => void): void {
  const path = join(m.folder, 'p0.json')
  const record = JSON.parse(readFileSync(path, 'utf8'))
  change(record)
  writeFileSync(path, JSON.stringify(record))
}

/** Puts something else in the place of a record. */
function replace(m: RestingMachine, make: (path: string) => void): void {
  const path = join(m.folder, 'p0.json')
  rmSync(path)
  make(path)
}

// biome-ignore lint/suspicious/noExplicitAny: what a hostile record has
const disk = (record: any) => record.disks[0]

const BROKEN: [string, (m: RestingMachine) => void, string][] = [
  ['no JSON', (m) => writeFileSync(join(m.folder, 'p0.json'), '{'), 'BAD_RECORD'],
  ['empty', (m) => truncateSync(join(m.folder, 'p0.json'), 0), 'BAD_RECORD'],
  ['no object', (m) => writeFileSync(join(m.folder, 'p0.json'), 'null'), 'BAD_RECORD'],
  ['deep', (m) => writeFileSync(join(m.folder, 'p0.json'), '['.repeat(2 ** 20)), 'BAD_RECORD'],
  ['huge', (m) => truncateSync(join(m.folder, 'p0.json'), 2 ** 40), 'BAD_RECORD'],
  ['of a later version', (m) => edit(m, (r) => Object.assign(r, { version: 2 })), 'UNSUPPORTED'],
  ['of another machine', (m) => edit(m, (r) => Object.assign(r, { machine: 'x' })), 'BAD_RECORD'],
  ['of another point', (m) => edit(m, (r) => Object.assign(r, { point: 'x' })), 'BAD_RECORD'],
  ['without disks', (m) => edit(m, (r) => Object.assign(r, { disks: {} })), 'BAD_RECORD'],
  [
    'of a disk twice',
    (m) => edit(m, (r) => Object.assign(r, { disks: [disk(r), disk(r)] })),
    'BAD_RECORD',
  ],
  [
    'with a path',
    (m) => edit(m, (r) => Object.assign(disk(r), { image: '../x.qcow2' })),
    'BAD_RECORD',
  ],
  [
    'with a parent that is a path',
    (m) => edit(m, (r) => Object.assign(disk(r), { parent: '../x' })),
    'BAD_RECORD',
  ],
  [
    'incremental without a parent',
    (m) => edit(m, (r) => Object.assign(disk(r), { kind: 'incremental' })),
    'BAD_RECORD',
  ],
  [
    'of a negative size',
    (m) => edit(m, (r) => Object.assign(disk(r), { virtualSize: -1 })),
    'BAD_RECORD',
  ],
  ['a directory', (m) => replace(m, (path) => mkdirSync(path)), 'IO'],
  ['a device', (m) => replace(m, (path) => symlinkSync('/dev/zero', path)), 'UNSUPPORTED'],
  ['a journal that is none', (m) => writeFileSync(join(m.folder, '.run.json'), '{}'), 'BAD_RECORD'],
]

for (const [what, act, code] of BROKEN) {
  t.test(`a record that is broken ends a run clearly: ${what}`, async (t) => {
    const m = await setUp(t)
    act(m)
    await t.rejects(again(m), { code, message: new RegExp(`^${m.folder}/\\.?[a-z0-9]+\\.json: `) })
    t.strictSame(m.bitmaps(), ['p0'])
    if (!what.startsWith('a journal')) {
      await t.rejects(listRepository(m.repository), { code })
      await t.rejects(restoreMachine(m.repository, 'web', join(m.directory, 'r')), { code })
    }
    t.notOk(existsSync(join(m.directory, 'r')))
  })
}

t.test('a later format, and what is no repository', async (t) => {
  const m = await setUp(t)
  const mark = join(m.repository, 'repository.json')
  t.match(JSON.parse(readFileSync(mark, 'utf8')), { format: 1 })
  writeFileSync(mark, '{"format": 2}')
  await t.rejects(again(m), {
    code: 'UNSUPPORTED',
    message: /format 2, which needs a newer version/,
  })
  writeFileSync(mark, '{"format": "1"}')
  await t.rejects(again(m), { code: 'BAD_RECORD' })
  await t.rejects(listRepository(m.directory), { code: 'BAD_RECORD', message: /no repository/ })
  await t.rejects(listRepository(join(m.directory, 'none')), { code: 'IO' })
})

t.test('what killed runs left goes, what is named or foreign stays', async (t) => {
  const m = await setUp(t)
  const put = (name: string) => {
    writeFileSync(join(m.folder, name), 'x')
    const { size, mtimeMs } = statSync(join(m.folder, name))
    return { name, size, modified: new Date(mtimeMs).toISOString() }
  }
  const foreign = ['vda.p9.qcow2', 'notes.txt', '.hidden', 'x.partial', 'lost+found']
  const others = foreign.map(put)
  put('.vda.p1.qcow2.0123456789ab.partial')
  const ours = ['vda.p1.qcow2', 'vdb.p1.qcow2', 'p1.xml'].map(put)
  const late = put('vdc.p1.qcow2')
  foreign.push(late.name)
  const journal = (point: string, files: readonly object[], run = 'aaaaaaaaaaaa') => {
    const text = JSON.stringify({ version: 1, run, point, files })
    writeFileSync(join(m.folder, '.run.json'), text)
  }
  // Another file has taken the name.
  const visible = others.filter(({ name }) => !name.startsWith('.'))
  journal('p1', [...ours, ...visible, { ...late, modified: new Date(0).toISOString() }])
  const before = readFileSync(join(m.folder, 'vda.p0.qcow2'))
  const { notes } = await again(m)
  t.match(notes, [/removed what a run before left in the repository: .*vda\.p1\.qcow2.*p1\.xml$/])
  for (const name of foreign) t.ok(existsSync(join(m.folder, name)), `${name} stays`)
  t.notOk(existsSync(join(m.folder, 'vda.p1.qcow2')))
  // A journal of a point that exists removes nothing of it.
  const { size, mtimeMs } = statSync(join(m.folder, 'vda.p0.qcow2'))
  const image = { name: 'vda.p0.qcow2', size, modified: new Date(mtimeMs).toISOString() }
  for (const run of [m.records()[0].id, 'aaaaaaaaaaaa']) {
    journal('p0', [image], run)
    await again(m)
    t.ok(readFileSync(join(m.folder, 'vda.p0.qcow2')).equals(before), 'what a record names stays')
  }
  t.ok(existsSync(m.raw))
  t.notOk(existsSync(join(m.folder, '.run.json')))
})

t.test('hostile names of machines and disks', async (t) => {
  const m = new RestingMachine(t)
  const names = [
    '.',
    '..',
    'a/b',
    '../../x',
    '.lock',
    'repository.json',
    '%2F',
    'x'.repeat(300),
    'ü\n',
  ]
  for (const name of names) {
    const machine = `disk:${name}=${m.qcow2},b.c=${m.raw}`
    await backupMachine(machine, m.repository, { name, checkpoint: `p${names.indexOf(name)}` })
    const target = join(m.directory, 'out.raw')
    await restoreMachine(m.repository, name, target, { disk: name, force: true })
  }
  const machines = new Set((await listRepository(m.repository)).map(({ machine }) => machine))
  t.strictSame([...machines].sort(), [...names].sort())
  t.equal(readdirSync(m.repository).length, names.length + 1)
  t.strictSame(readdirSync(m.directory).sort(), ['a.qcow2', 'b.raw', 'out.raw', 'repo'])
})

t.test('a lock that is a link to another file is not followed', async (t) => {
  const m = await setUp(t)
  const other = join(m.directory, 'other')
  writeFileSync(other, 'of somebody else')
  rmSync(join(m.folder, '.lock'))
  symlinkSync(other, join(m.folder, '.lock'))
  await t.rejects(again(m), { code: 'IO', what: join(m.folder, '.lock') })
  t.equal(readFileSync(other, 'utf8'), 'of somebody else')
})

t.test('a repository that cannot be written to', { skip: process.getuid?.() === 0 }, async (t) => {
  const m = await setUp(t)
  chmodSync(m.folder, 0o500)
  await t.rejects(again(m), { code: 'IO', errno: 'EACCES' })
  t.strictSame(m.bitmaps(), ['p0'])
  chmodSync(m.folder, 0o700)
})
