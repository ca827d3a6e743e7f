/** What can be put right in a repository is, what cannot is named, and nothing is ever lost. */
import {
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  backupMachine,
  listRepository,
  type PointRecord,
  type RepairRepositoryOptions,
  type RepairStep,
  repairRepository,
  restoreMachine,
  verifyRepository,
} from '../../lib/index.ts'
import { Repository } from '../../lib/repository/repository.ts'
import { firstDifference } from '../support/disks.ts'
import { effort } from '../support/effort.ts'
import { peek, peek64, poke } from '../support/patch.ts'
import { seeded } from '../support/random.ts'
import type { Random } from '../support/random-image.ts'
import { RestingMachine } from '../support/repository.ts'

t.setTimeout(900_000)

const NAMES = ['20261127T010000Z', 'before-update', '20991129T010000Z']

/** Three points of a disk vda, each over the one before, and vdb, each in full; and one of a long name. */
const made = new RestingMachine(t)
const contents = new Map<string, Buffer[]>()
for (const [i, checkpoint] of NAMES.entries()) {
  made.write(i)
  contents.set(checkpoint, made.contents())
  await backupMachine(made.machine, made.repository, { name: 'web', checkpoint })
}

/** A copy of the repository, with the folder of the machine. */
function copied(t: Test): { repository: string; folder: string; records: PointRecord[] } {
  const repository = join(t.testdir(), 'repo')
  cpSync(made.repository, repository, { recursive: true, preserveTimestamps: true })
  const folder = join(repository, 'web')
  return { repository, folder, records: NAMES.map((name) => recordIn(folder, name)) }
}

function recordIn(folder: string, point: string): PointRecord {
  return JSON.parse(readFileSync(join(folder, `${point}.json`), 'utf8'))
}

async function steps(repository: string, options?: RepairRepositoryOptions): Promise<RepairStep[]> {
  const all: RepairStep[] = []
  for await (const one of repairRepository(repository, options)) all.push(one)
  return all
}

/** A step in a few words: `rebuild p0.json`. */
const inShort = ({ action, file }: RepairStep) =>
  `${action} ${file.slice(file.lastIndexOf('/') + 1)}`

/** Points of which something is bad. */
async function badIn(repository: string): Promise<string[]> {
  const bad = new Set<string>()
  for await (const { point, file, same } of verifyRepository(repository)) {
    if (!same) bad.add(point ?? file)
  }
  return [...bad].sort()
}

/** Names, lengths and times of all files, and the bytes of the small ones. */
function snapshot(folder: string): string[] {
  return readdirSync(folder)
    .filter((name) => name !== '.lock')
    .map((name) => {
      const { size, mtimeMs } = statSync(join(folder, name))
      const text = size < 8192 ? readFileSync(join(folder, name), 'latin1') : ''
      return `${name} ${size} ${mtimeMs} ${text}`
    })
}

/** A record without what images do not tell. Times of copies made by Node are rounded. */
function told({ versions: _1, disks, ...record }: PointRecord) {
  return {
    ...record,
    disks: disks.map(({ bitmap: _2, reason: _3, modified: _4, ...disk }) => disk),
  }
}

t.test('a record that is lost is made again as it was, by what others say of it', async (t) => {
  const { repository, folder, records } = copied(t)
  const [, middle, last] = NAMES
  rmSync(join(folder, `${middle}.json`))
  t.strictSame(await badIn(repository), [last, middle])
  t.match(await steps(repository), [
    { machine: 'web', point: middle, action: 'rebuild', done: true },
  ])
  const { rebuilt, ...again } = recordIn(folder, middle)
  t.match(rebuilt, /^\d{4}-\d\d-\d\dT/)
  const { time } = again
  // Of a point with a name that somebody chose the instant is not known.
  t.ok(records[0].time < time && time < records[2].time)
  t.strictSame(told(again), { ...told(records[1]), time })
  t.strictSame(await badIn(repository), [])
  for (const point of effort([middle], NAMES)) {
    const target = join(repository, '..', point)
    await restoreMachine(repository, 'web', target, { point })
    for (const [i, disk] of ['vda', 'vdb'].entries()) {
      t.equal(firstDifference(join(target, `${disk}.raw`), contents.get(point)![i]), undefined)
    }
  }
})

t.test('all records are made again, also one that is broken, which stays', async (t) => {
  const { repository, folder, records } = copied(t)
  rmSync(join(folder, `${NAMES[0]}.json`))
  truncateSync(join(folder, `${NAMES[1]}.json`), 200)
  writeFileSync(join(folder, `${NAMES[2]}.json`), '{"version": 1}')
  writeFileSync(join(folder, `${NAMES[2]}.json.broken`), 'of another time')
  await t.rejects(listRepository(repository), { code: 'BAD_RECORD' })
  const before = snapshot(folder)
  const expected = [
    `rebuild ${NAMES[0]}.json`,
    `set-aside ${NAMES[2]}.json`,
    `rebuild ${NAMES[2]}.json`,
    `set-aside ${NAMES[1]}.json`,
    `rebuild ${NAMES[1]}.json`,
  ]
  const dry = await steps(repository, { dryRun: true })
  t.strictSame(dry.map(inShort).sort(), [...expected].sort())
  t.ok(dry.every(({ done }) => !done))
  t.strictSame(snapshot(folder), before, 'a dry run changes nothing')
  const real = await steps(repository, { machines: ['web'] })
  t.strictSame(real.map(inShort).sort(), [...expected].sort())
  t.ok(real.every(({ done }) => done))
  t.equal(readFileSync(join(folder, `${NAMES[2]}.json.broken-2`), 'utf8'), '{"version": 1}')
  t.equal(statSync(join(folder, `${NAMES[1]}.json.broken`)).size, 200)
  t.strictSame(await badIn(repository), [])
  const listed = await listRepository(repository)
  t.ok(listed.every(({ rebuilt }) => rebuilt !== undefined))
  const contentOf = ({ point, disks }: PointRecord) => ({
    point,
    disks: disks.map(({ image, kind, parent, content }) => ({ image, kind, parent, content })),
  })
  t.strictSame(listed.map(contentOf), records.map(contentOf))
  t.equal(listed[0].time, '2026-11-27T01:00:00.000Z')
  t.strictSame(await steps(repository), [])
})

/** What cannot be put right, and the step that says so. */
const LEFT: [string, (folder: string) => void, RegExp[]][] = [
  [
    'a disk that other points have',
    (folder) => {
      rmSync(join(folder, `${NAMES[1]}.json`))
      rmSync(join(folder, `vdb.${NAMES[1]}.qcow2`))
    },
    [/before-update\.json: .* it may have had the disks 'vdb', of which there is no image$/],
  ],
  [
    'an image that is not sound',
    (folder) => {
      rmSync(join(folder, `${NAMES[2]}.json`))
      const path = join(folder, `vda.${NAMES[2]}.qcow2`)
      const refcount = Number(peek64(path, Number(peek64(path, 48)))) + 1
      poke(path, refcount, Buffer.of(peek(path, refcount, 1)[0] ^ 1))
    },
    [/20991129T010000Z\.json: .*is not sound/],
  ],
  [
    'what an image builds on',
    (folder) => {
      for (const point of NAMES) rmSync(join(folder, `${point}.json`))
      rmSync(join(folder, `vda.${NAMES[0]}.qcow2`))
      rmSync(join(folder, `vdb.${NAMES[0]}.qcow2`))
    },
    [
      /20991129T010000Z\.json: .*builds on 'vda.before-update.qcow2', which no record names/,
      /before-update\.json: .*builds on 'vda.20261127T010000Z.qcow2', which no record names/,
    ],
  ],
  [
    'images that are gone',
    (folder) => rmSync(join(folder, `vda.${NAMES[0]}.qcow2`)),
    [/vda\.20261127T010000Z\.qcow2: no such file or directory$/],
  ],
  [
    'a record without images that cannot be read, one of a newer version, a definition alone',
    (folder) => {
      writeFileSync(join(folder, 'p8.json'), '{')
      writeFileSync(join(folder, 'p9.json'), '{"version": 2}')
      writeFileSync(join(folder, 'p9.xml'), '<domain/>')
      writeFileSync(join(folder, 'p7.xml'), '<domain/>')
    },
    [
      /p8\.json: is not JSON; cannot be rebuilt: there is no image of it$/,
      /p9\.json: is of version 2, which needs a newer version of this program$/,
      /p7\.xml: is a definition, without the disks$/,
    ],
  ],
  [
    'an image of a point that has a record without it',
    (folder) => writeFileSync(join(folder, `vdc.${NAMES[0]}.qcow2`), ''),
    [/vdc\.20261127T010000Z\.qcow2: is of a point whose record does not name it$/],
  ],
  [
    'records of another machine',
    (folder) => {
      for (const point of NAMES) {
        const record = { ...recordIn(folder, point), machine: 'db' }
        writeFileSync(join(folder, `${point}.json`), JSON.stringify(record))
      }
    },
    [...NAMES]
      .sort()
      .map((point) => new RegExp(`${point}.json: .*it is of machine 'db'; is whole: give it`)),
  ],
  [
    'a journal of a newer version',
    (folder) => writeFileSync(join(folder, '.run.json'), '{"version": 2}'),
    [/\.run\.json: is of version 2, which needs a newer version of this program$/],
  ],
]

for (const [what, act, expected] of LEFT) {
  t.test(`what cannot be put right stays as it is, and is named: ${what}`, async (t) => {
    const { repository, folder } = copied(t)
    act(folder)
    const before = snapshot(folder)
    const found = await steps(repository)
    t.ok(found.every(({ action, done }) => action === 'leave' && !done))
    t.match(
      found.map(({ file, why }) => `${file}: ${why}`),
      expected,
    )
    t.equal(found.length, expected.length)
    t.strictSame(snapshot(folder), before)
  })
}

t.test('what killed runs left goes, and what they cannot tell any more stays', async (t) => {
  const { repository, folder } = copied(t)
  const put = (name: string, text = 'x') => writeFileSync(join(folder, name), text)
  put('.vda.p3.qcow2.0123456789ab.partial')
  put('.run.json', '{')
  put('notes.txt')
  const dry = await steps(repository, { dryRun: true })
  const real = await steps(repository)
  const expected = ['set-aside .run.json', 'remove .vda.p3.qcow2.0123456789ab.partial']
  t.strictSame(real.map(inShort), expected)
  t.ok(expected.every((one) => dry.map(inShort).includes(one)))
  t.ok(existsSync(join(folder, '.run.json.broken')))
  t.ok(existsSync(join(folder, 'notes.txt')))
  await backupMachine(made.machine, repository, { name: 'web', noCheckpoint: true })
})

t.test(
  'a run and a prune that were killed end as by the next run; a dry run tells it all',
  async (t) => {
    const { repository, folder } = copied(t)
    const last = NAMES[2]
    const put = (name: string, text = 'x') => writeFileSync(join(folder, name), text)
    for (const name of ['vda.p9.qcow2', 'vdb.p9.qcow2', 'p9.xml']) put(name)
    const files = ['vda.p9.qcow2', 'p9.xml', `vda.${NAMES[0]}.qcow2`].map((name) => {
      const { mtimeMs } = statSync(join(folder, name), { bigint: true })
      return { name, size: 1, modified: new Date(Number(mtimeMs)).toISOString() }
    })
    put('.run.json', JSON.stringify({ version: 1, run: '0'.repeat(12), point: 'p9', files }))
    const remove = [{ point: last, files: [`vda.${last}.qcow2`, `vdb.${last}.qcow2`] }]
    const prune = { version: 1, run: '1'.repeat(12), images: [], records: [], remove }
    put('.prune.json', JSON.stringify(prune))
    const before = snapshot(folder)
    const dry = await steps(repository, { dryRun: true })
    t.strictSame(snapshot(folder), before)
    const real = await steps(repository)
    const expected = [
      'finish .prune.json',
      `remove ${last}.json`,
      `remove vda.${last}.qcow2`,
      `remove vdb.${last}.qcow2`,
      'remove vda.p9.qcow2',
      'remove p9.xml',
      // Of it the journal did not speak.
      'leave p9.json',
    ]
    t.strictSame(real.map(inShort), expected)
    t.strictSame(dry.map(inShort).slice(0, 6), expected.slice(0, 6))
    t.strictSame(
      readdirSync(folder).filter((name) => name.includes('p9')),
      ['vdb.p9.qcow2'],
    )
    t.ok(existsSync(join(folder, `vda.${NAMES[0]}.qcow2`)), 'what is a point stays')
  },
)

t.test('a machine that is backed up now is left alone, the others are not', async (t) => {
  const { repository, folder } = copied(t)
  cpSync(folder, join(repository, 'db'), { recursive: true })
  rmSync(join(repository, 'db', '.lock'))
  for (const machine of ['db', 'web']) {
    writeFileSync(join(repository, machine, '.x.0123456789ab.partial'), '')
  }
  const lock = await (await Repository.open(repository)).lock('db')
  const found = await steps(repository)
  await lock.close()
  t.match(found[0], { machine: 'db', action: 'leave', done: false, why: /another run/ })
  t.match(found.at(-1), { machine: 'web', action: 'remove', done: true })
  await t.rejects(steps(repository, { machines: ['none'] }), { code: 'USAGE' })
})

t.test('names that are too long for files come from other records', async (t) => {
  const [machine, disk] = ['m'.repeat(300), 'd'.repeat(200)]
  const repository = join(t.testdir(), 'repo')
  for (const checkpoint of ['p0', 'p1']) {
    const source = `disk:${disk}=${made.raw}`
    await backupMachine(source, repository, { name: machine, checkpoint })
  }
  const [name] = readdirSync(repository).filter((one) => one.startsWith('m'))
  rmSync(join(repository, name, 'p0.json'))
  t.match(await steps(repository), [{ machine, action: 'rebuild', point: 'p0' }])
  t.match(await listRepository(repository), [
    { machine, disks: [{ name: disk }] },
    { machine, disks: [{ name: disk }] },
  ])
  for (const point of ['p0', 'p1']) rmSync(join(repository, name, `${point}.json`))
  const found = await steps(repository)
  t.match(found, [{ machine: name, why: /no record names the machine$/ }, {}])
})

/** Does something bad to a file of the repository. */
function harm(folder: string, random: Random): void {
  const names = readdirSync(folder).filter((name) => !name.startsWith('.'))
  const path = join(folder, names[random(names.length)])
  const { size } = statSync(path)
  const what = random(path.endsWith('.json') ? 3 : 6)
  if (what === 0) rmSync(path)
  else if (what === 1) truncateSync(path, random(size + 1))
  else if (what === 2 && size > 0) poke(path, random(size), Buffer.of(random(256)))
}

t.test(
  'whatever happened, nothing is lost, and a second run finds nothing more to do',
  async (t) => {
    const seed = Number(process.env.SEED ?? 1)
    for (let run = seed; run < seed + effort(2, 300); run++) {
      const { repository, folder } = copied(t)
      const next = seeded(run)
      const random = (below: number) => Math.floor(next() * below)
      for (let i = random(6); i >= 0; i--) harm(folder, random)
      const kept = readdirSync(folder).filter((name) => !name.startsWith('.'))
      const bytes = new Map(kept.map((name) => [name, readFileSync(join(folder, name))]))
      const badBefore = new Set(await badIn(repository))
      const found = await steps(repository)
      const names = new Map(found.flatMap(({ file, to }) => (to === undefined ? [] : [[file, to]])))
      const lost = kept.filter((name) => {
        const path = join(folder, name)
        const now = names.get(path) ?? path
        return !existsSync(now) || !readFileSync(now).equals(bytes.get(name)!)
      })
      const worse = (await badIn(repository)).filter((point) => !badBefore.has(point))
      const again = (await steps(repository)).filter(({ action }) => action !== 'leave')
      t.strictSame(
        { lost, worse, again: again.map(inShort) },
        { lost: [], worse: [], again: [] },
        `SEED=${run}`,
      )
    }
  },
)
