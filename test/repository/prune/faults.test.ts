/** What is not as it was recorded, does not fit, or is in use: a prune ends clearly, and nothing is changed. */
import {
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import fs from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { join } from 'node:path'
import t from 'tap'
import { pruneRepository, repairRepository } from '../../../lib/index.ts'
import { Repository } from '../../../lib/repository/repository.ts'
import { CLI } from '../../support/cli.ts'
import { cutOffAt } from '../../support/power-cut.ts'
import { PrunedMachine } from '../../support/pruned-machine.ts'
import { run } from '../../support/qemu.ts'
import { seeded } from '../../support/random.ts'

t.setTimeout(900_000)

/** Keeps p3, and p0 as the oldest: p1 and p2 become part of p3. */
const POLICY = { keepDaily: 2 }

const m = new PrunedMachine(t, ['vda'], seeded(4))
const saved = `${m.repository}.saved`

t.before(async () => {
  for (let i = 0; i < 4; i++) {
    m.change()
    await m.backup({ hours: 1 })
  }
  renameSync(m.repository, saved)
})

/** Puts the repository there as it was. */
async function restart(): Promise<void> {
  rmSync(m.repository, { recursive: true, force: true })
  await fs.cp(saved, m.repository, { recursive: true, preserveTimestamps: true })
}

t.beforeEach(restart)

/** Names and contents of all files. */
function snapshot(): Record<string, string> {
  const names = readdirSync(m.folder).filter((name) => name !== '.lock')
  return Object.fromEntries(
    names.map((name) => [name, readFileSync(join(m.folder, name), 'latin1')]),
  )
}

/** Changes a file and keeps its times, as storage does that rots. */
function rot(path: string, change: (bytes: Buffer) => void): void {
  const { atime, mtime } = statSync(path)
  const bytes = readFileSync(path)
  change(bytes)
  writeFileSync(path, bytes)
  utimesSync(path, atime, mtime)
}

/** Inverts a byte of the data, which follows the header in images of ours. */
function flip(bytes: Buffer): void {
  const at = bytes.findIndex((byte, i) => byte !== 0 && i >= 65536)
  bytes[at] ^= 0xff
}

// biome-ignore lint/suspicious/noExplicitAny: what a broken record has
function edit(point: string, change: (record: any) => void): void {
  const path = join(m.folder, `${point}.json`)
  const record = JSON.parse(readFileSync(path, 'utf8'))
  change(record)
  writeFileSync(path, JSON.stringify(record))
}

const BROKEN: [string, () => void, string, RegExp][] = [
  ...['p1', 'p3'].map((point): (typeof BROKEN)[number] => {
    const act = () => rot(join(m.folder, `vda.${point}.qcow2`), flip)
    const why = new RegExp(`vda\\.${point}\\.qcow2: .*other content than recorded`)
    return [`the data of ${point} has rotted`, act, 'DIFFERENT', why]
  }),
  [
    'an image is gone',
    () => rmSync(join(m.folder, 'vda.p2.qcow2')),
    'IO',
    /vda\.p2\.qcow2: no such file/,
  ],
  [
    'an image is another one',
    () =>
      writeFileSync(join(m.folder, 'vda.p2.qcow2'), readFileSync(join(m.folder, 'vda.p0.qcow2'))),
    'BAD_IMAGE',
    /vda\.p2\.qcow2: has .* as recorded/,
  ],
  [
    'a point is another one of its name',
    () => edit('p1', (record) => Object.assign(record, { id: 'f'.repeat(12) })),
    'BAD_RECORD',
    /web@p3, disk vda: the point 'p1' is another one/,
  ],
  [
    'a point is gone on which a removed one builds',
    () => rmSync(join(m.folder, 'p1.json')),
    'BAD_RECORD',
    /web@p3, disk vda: the point 'p1', on which .* is gone/,
  ],
]

t.test('what is not as it was recorded is not made part of anything', async (t) => {
  for (const [what, act, code, message] of BROKEN) {
    await restart()
    act()
    const before = snapshot()
    const { failure, removed } = await m.prune(POLICY)
    t.match({ failure, removed }, { failure: { code, message }, removed: [] }, what)
    t.strictSame(snapshot(), before, `${what}: nothing is changed`)
  }
})

t.test('a machine that cannot be pruned does not keep others from it', async (t) => {
  await fs.cp(m.folder, join(m.repository, 'db'), { recursive: true, preserveTimestamps: true })
  for (const point of m.points()) {
    const path = join(m.repository, 'db', `${point}.json`)
    writeFileSync(path, readFileSync(path, 'utf8').replace('"web"', '"db"'))
  }
  writeFileSync(join(m.repository, 'db', 'p1.json'), '{')
  const results = []
  for await (const one of pruneRepository(m.repository, POLICY)) results.push(one)
  t.match(results, [
    { machine: 'db', points: [], failure: { code: 'BAD_RECORD' } },
    { machine: 'web', removed: ['p2', 'p1'] },
  ])
  t.notOk('failure' in results[1])
  t.strictSame(await m.differences(['p0', 'p3']), [])
})

t.test('a plan says how much is needed at most, and freed', async (t) => {
  const plan = await m.prune({ ...POLICY, dryRun: true })
  const { neededBytes, freedBytes, joined } = await m.prune(POLICY)
  const [{ fileSize }] = joined
  t.ok(fileSize <= plan.joined[0].fileSize, `${fileSize}`)
  t.equal(neededBytes, plan.joined[0].fileSize)
  t.ok(freedBytes > 0 && freedBytes <= plan.freedBytes, `${freedBytes} of ${plan.freedBytes}`)
})

t.test('space is looked for beforehand', async (t) => {
  const before = snapshot()
  const { statfs } = fs
  Object.assign(fs, { statfs: async () => ({ bsize: 4096, bavail: 300 }) })
  syncBuiltinESMExports()
  t.teardown(() => {
    Object.assign(fs, { statfs })
    syncBuiltinESMExports()
  })
  const { failure } = await m.prune(POLICY)
  t.match(failure, { code: 'IO', message: /are to be made need .*, and .* are free/ })
  t.strictSame(snapshot(), before)
})

t.test('space that runs out meanwhile', async (t) => {
  const before = snapshot()
  const args = ['prune', '--repo', m.repository, '--keep-daily', '2']
  const limited = 'ulimit -f 300; exec "$@"'
  const { status, stderr } = run('bash', ['-c', limited, 'bash', process.execPath, CLI, ...args])
  t.equal(status, 1)
  t.match(stderr, /^qcow2-backup: prune: .*vda\.p3\.qcow2: set length: file too large.*\n$/)
  t.strictSame(snapshot(), before)
})

t.test('an interrupted prune changes nothing', async (t) => {
  const before = snapshot()
  const controller = new AbortController()
  const onProgress = () => controller.abort()
  await t.rejects(m.prune({ ...POLICY, signal: controller.signal, onProgress }), {
    code: 'ABORTED',
  })
  t.strictSame(snapshot(), before)
})

t.test('names change only while nobody reads', async (t) => {
  const before = snapshot()
  const reading = await (await Repository.open(m.repository)).machine('web').readLock()
  let waits = 0
  const result = await m.prune({
    ...POLICY,
    onProgress({ phase }) {
      if (phase !== 'wait' || waits++ > 0) return
      const now = snapshot()
      for (const [name, content] of Object.entries(before)) t.equal(now[name], content, name)
      void reading.release()
    },
  })
  t.equal(waits, 1)
  t.strictSame(result.removed, ['p2', 'p1'])
})

t.test('another run has the machine', async (t) => {
  const other = await (await Repository.open(m.repository)).lock('web')
  const { failure } = await m.prune(POLICY)
  t.equal(failure?.code, 'IN_USE')
  await other.close()
})

t.test('no file goes that the record of a kept point names', async (t) => {
  edit('p1', ({ disks }) => disks.push({ ...disks[0], name: 'vdb', image: 'vda.p0.qcow2' }))
  const { failure } = await m.prune(POLICY)
  t.equal(failure, undefined)
  t.strictSame(await m.differences(['p0', 'p3']), [])
})

t.test('a prune whose new images were lost is taken back by the next run', async (t) => {
  const points = m.points()
  // The journal is there, and no image has its name.
  let journal = 1
  for (; !readdirSync(m.folder).includes('.prune.json'); journal++) {
    await cutOffAt(journal, () => m.prune(POLICY))
  }
  const [lost] = readdirSync(m.folder).filter((name) => name.endsWith('.partial'))
  rmSync(join(m.folder, lost))
  const folder = await (await Repository.open(m.repository)).lock('web')
  await folder.clean()
  await folder.close()
  t.strictSame(m.points(), points)
  t.strictSame(m.strangers(), [])
  t.strictSame(await m.differences(points), [])
})

t.test('a journal that is broken keeps nobody from reading', async (t) => {
  writeFileSync(join(m.folder, '.prune.json'), '{')
  t.strictSame(await m.differences(m.points()), [])
  const before = snapshot()
  const { failure } = await m.prune(POLICY)
  t.match(failure, { code: 'BAD_RECORD', message: /\.prune\.json: is not JSON$/ })
  t.strictSame(snapshot(), before)
  const steps = []
  for await (const step of repairRepository(m.repository)) steps.push(step)
  t.match(steps, [{ action: 'set-aside', file: join(m.folder, '.prune.json') }])
  t.equal((await m.prune(POLICY)).failure, undefined)
})
