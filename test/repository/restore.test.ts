/** Restoring points: all disks or none, nothing that is not as recorded, and nobody's file lost. */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import t, { type Test } from 'tap'
import { backupMachine, listRepository, restoreMachine } from '../../lib/index.ts'
import { native } from '../../lib/native.ts'
import { Repository } from '../../lib/repository/repository.ts'
import { CLI } from '../support/cli.ts'
import { inMountNamespace } from '../support/namespace.ts'
import { RestingMachine } from '../support/repository.ts'

t.setTimeout(900_000)

/**
 * Two points: `vda` of the second is incremental. The disks are as at the second. Each test leaves the
 * repository as it was.
 */
const m = new RestingMachine(t)
for (const i of [0, 1]) {
  m.write(i)
  await backupMachine(m.machine, m.repository, { name: 'web', checkpoint: `p${i}` })
}
writeFileSync(join(m.folder, 'p1.xml'), '<domain/>')
const CONTENTS = m.contents()

/**
 * Changes a byte of a disk's data, and nothing that the file system shows.
 * @returns changes it back
 */
function rot(path: string, number: number): () => void {
  const bytes = readFileSync(path)
  const { atimeMs, mtimeMs } = statSync(path)
  const at = bytes.indexOf(Buffer.alloc(512, (number % 255) + 1))
  if (at < 0) throw new Error(`${path} does not hold the data`)
  const change = () => {
    bytes[at] ^= 1
    writeFileSync(path, bytes)
    utimesSync(path, (atimeMs + 0.5) / 1000, (mtimeMs + 0.5) / 1000)
  }
  change()
  return change
}

/** Lets somebody else make a file right before it would get its name. */
function beTaken(test: Test, path: string): void {
  const addon = native()
  const { linkFile } = addon
  addon.linkFile = (fd, name) => {
    if (basename(name.toString()) === basename(path)) {
      writeFileSync(path, 'mine')
      addon.linkFile = linkFile
    }
    linkFile(fd, name)
  }
  test.teardown(() => {
    addon.linkFile = linkFile
  })
}

function requireRestored(t: Test, out: string): void {
  const [vda, vdb] = CONTENTS
  t.strictSame(readdirSync(out).sort(), ['p1.xml', 'vda.raw', 'vdb.raw'])
  t.ok(readFileSync(join(out, 'vda.raw')).equals(vda))
  t.ok(readFileSync(join(out, 'vdb.raw')).equals(vdb))
}

t.test('all disks and the definition go into a directory, one disk where it is told', async (t) => {
  const out = join(t.testdir(), 'out')
  const phases = new Set<string>()
  const result = await restoreMachine(m.repository, 'web', `${out}/`, {
    onProgress: ({ phase, disks }) => phases.add(`${phase} of ${disks?.length}`),
  })
  t.match(result, { point: 'p1', verified: true, definition: join(out, 'p1.xml') })
  t.ok(phases.has('copy of 2'), [...phases].join())
  requireRestored(t, out)
  // Into the same directory again, in its place.
  await restoreMachine(m.repository, 'web', out, { force: true, verify: true })
  requireRestored(t, out)
  await restoreMachine(m.repository, 'web', `${out}/one/`, { disk: 'vdb' })
  t.strictSame(readdirSync(join(out, 'one')), ['vdb.raw'])
  await restoreMachine(m.repository, 'web', join(out, 'one'), {
    disk: 'vda',
    outputFormat: 'qcow2',
  })
  t.strictSame(readdirSync(join(out, 'one')).sort(), ['vda.qcow2', 'vdb.raw'])
  await restoreMachine(m.repository, 'web', join(out, 'file'), { disk: 'vdb', point: 'p0' })
  t.ok(statSync(join(out, 'file')).isFile())
})

t.test('several disks do not go into one', async (t) => {
  for (const target of ['nbd://localhost/x', m.raw]) {
    await t.rejects(restoreMachine(m.repository, 'web', target, { force: true }), {
      code: 'USAGE',
      message: /^disk: web at p1 has 2 disks, and .*; name one of 'vda', 'vdb'$/,
    })
  }
  const below = restoreMachine(m.repository, 'web', join(m.raw, 'x'))
  await t.rejects(below, { code: 'IO', message: /a part of the path is not a directory/ })
})

t.test('a name that is taken, before or meanwhile, leaves all as it was', async (t) => {
  const out = join(t.testdir(), 'out')
  const taken = { code: 'TARGET_EXISTS' }
  for (const name of ['vdb.raw', 'p1.xml']) {
    beTaken(t, join(out, name))
    await t.rejects(restoreMachine(m.repository, 'web', out), taken)
    t.strictSame(readdirSync(out), [name], 'meanwhile')
    await t.rejects(restoreMachine(m.repository, 'web', out), taken)
    t.strictSame(readdirSync(out), [name], 'before')
    t.equal(readFileSync(join(out, name), 'utf8'), 'mine')
    rmSync(out, { recursive: true })
  }
})

t.test('content that is not as recorded is not restored, unless that is asked for', async (t) => {
  const cases = [
    { image: 'vda.p0.qcow2', number: 0, disks: ['vda'], what: 'of a chain, below' },
    { image: 'vda.p1.qcow2', number: 1, disks: ['vda'], what: 'of a chain, at the top' },
    { image: 'vdb.p1.qcow2', number: 1, disks: ['vdb', undefined], what: 'alone' },
  ]
  for (const { image, number, disks, what } of cases) {
    const changeBack = rot(join(m.folder, image), number)
    const different = {
      code: 'DIFFERENT',
      message: new RegExp(`${image.replaceAll('.', '\\.')}: does not match the data that was read`),
    }
    const out = join(t.testdir(), 'out')
    for (const disk of disks) {
      await t.rejects(restoreMachine(m.repository, 'web', out, { disk }), different, what)
      t.notOk(existsSync(out), `${what}: nothing is made`)
    }
    mkdirSync(out)
    for (const name of ['vda.raw', 'vdb.raw', 'p1.xml']) writeFileSync(join(out, name), name)
    const forced = { force: true, verify: number === 0 ? true : undefined }
    await t.rejects(restoreMachine(m.repository, 'web', out, forced), different, what)
    for (const name of readdirSync(out)) t.equal(readFileSync(join(out, name), 'utf8'), name)
    const unread = await restoreMachine(m.repository, 'web', out, { force: true, verify: false })
    t.equal(unread.verified, false)
    changeBack()
  }
})

t.test('an image that another one has replaced is not restored', async (t) => {
  const path = join(m.folder, 'p0.json')
  const text = readFileSync(path, 'utf8')
  writeFileSync(path, text.replace(/"id": "[0-9a-f]+"/, '"id": "other"'))
  t.teardown(() => writeFileSync(path, text))
  for (const verify of [undefined, false]) {
    const restored = restoreMachine(m.repository, 'web', join(t.testdir(), 'out'), { verify })
    await t.rejects(restored, { code: 'BAD_IMAGE', message: /'p0' is another one than that/ })
  }
})

t.test('while a machine is restored its images keep their names', async (t) => {
  const held = await (await Repository.open(m.repository)).lock('web')
  const tries: Promise<unknown>[] = []
  await restoreMachine(m.repository, 'web', join(t.testdir(), 'out'), {
    onProgress: () => {
      tries.push(held.exclusive(async () => 'now', { signal: AbortSignal.abort() }).catch(() => {}))
    },
  })
  t.strictSame([...new Set(await Promise.all(tries))], [undefined])
  t.equal(await held.exclusive(async () => 'now'), 'now')
  await held.close()
})

t.test('a repository that cannot be written to is read', async (t) => {
  rmSync(join(m.folder, '.lock'))
  const script = `
    mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"
    ! touch "$1/web/x" 2>/dev/null
    exec "$2" "$3" restore --repo "$1" web "$4"`
  const out = join(t.testdir(), 'out')
  const result = inMountNamespace(script, m.repository, process.execPath, CLI, out)
  t.equal(result.status, 0, result.stderr)
  requireRestored(t, out)
  t.notOk(existsSync(join(m.folder, '.lock')))
})

t.test("a file that takes an image's name during a backup stays", async (t) => {
  for (const name of ['vda.p2.qcow2', 'vdb.p2.qcow2']) {
    const path = join(m.folder, name)
    beTaken(t, path)
    const named = { name: 'web', checkpoint: 'p2' }
    await t.rejects(backupMachine(m.machine, m.repository, named), { code: 'TARGET_EXISTS' })
    t.equal(readFileSync(path, 'utf8'), 'mine')
    rmSync(path)
    t.strictSame(
      readdirSync(m.folder).filter((one) => one.includes('p2')),
      [],
    )
  }
})

t.test('machines and points that are not there', async (t) => {
  const none = { code: 'USAGE', message: /^db: .* has no such machine; it has 'web'$/ }
  await t.rejects(listRepository(m.repository, { machine: 'db' }), none)
  await t.rejects(restoreMachine(m.repository, 'db', join(t.testdir(), 'out')), none)
  await t.rejects(restoreMachine(m.repository, 'web', m.raw, { point: 'p9' }), {
    code: 'USAGE',
    message: /^web@p9: there is no such point$/,
  })
  t.strictSame(readdirSync(m.repository).sort(), ['repository.json', 'web'])
})
