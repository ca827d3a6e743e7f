/** A repository is verified: everything is looked at, each fault is found, what depends on it is told. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { lockFile, WRITING } from '../../lib/image/locks.ts'
import {
  backupMachine,
  listRepository,
  type RepositoryFinding,
  type VerifyRepositoryOptions,
  verifyRepository,
} from '../../lib/index.ts'
import { someOf } from '../support/effort.ts'
import { HOSTILE_IMAGES } from '../support/hostile-images.ts'
import { peek, peek64, poke } from '../support/patch.ts'
import { qemuImg } from '../support/qemu.ts'
import { RestingMachine } from '../support/repository.ts'

t.setTimeout(900_000)

/** Points p0, p1 and p2 of a disk vda, each over the one before, and vdb, each in full. */
const made = new RestingMachine(t)
for (const i of [0, 1, 2]) {
  made.write(i)
  await backupMachine(made.machine, made.repository, { name: 'web', checkpoint: `p${i}` })
}

/** A copy of the repository, with the folder of the machine. */
function copied(t: Test): { repository: string; folder: string } {
  const repository = join(t.testdir(), 'repo')
  cpSync(made.repository, repository, { recursive: true, preserveTimestamps: true })
  return { repository, folder: join(repository, 'web') }
}

async function findings(
  repository: string,
  options?: VerifyRepositoryOptions,
): Promise<RepositoryFinding[]> {
  const all: RepositoryFinding[] = []
  for await (const one of verifyRepository(repository, options)) all.push(one)
  return all
}

/** A finding in a few words: `image vda.p0.qcow2 DIFFERENT`. */
function inShort({ kind, file, same, code, dependsOn }: RepositoryFinding): string {
  const what = same ? 'good' : (code ?? 'bad')
  const name = file.slice(file.lastIndexOf('/') + 1)
  return `${kind} ${name} ${what}${dependsOn === undefined ? '' : ` on ${dependsOn}`}`
}

const ALL = ['p0', 'p1', 'p2'].flatMap((p) => [`vda.${p}.qcow2`, `vdb.${p}.qcow2`])

/** Changes one byte. */
function flip(path: string, at: number): void {
  poke(path, at, Buffer.of(peek(path, at, 1)[0] ^ 1))
}

/** Changes a byte of an image's first cluster of data. */
function flipData(path: string): void {
  const l2 = Number(peek64(path, Number(peek64(path, 40))) & 0xfffffffffffe00n)
  const entries = Array.from({ length: 256 }, (_, i) => peek64(path, l2 + i * 8))
  const data = entries.find((entry) => entry >> 62n !== 0n)!
  flip(path, Number(data & 0xfffffffffffe00n) + 10)
}

/** Changes a record. */
// biome-ignore lint/suspicious/noExplicitAny: what a record has
function edit(folder: string, point: string, change: (record: any) => void): void {
  const path = join(folder, `${point}.json`)
  const record = JSON.parse(readFileSync(path, 'utf8'))
  change(record)
  writeFileSync(path, JSON.stringify(record))
}

t.test('everything that is good is read, and that is remembered', async (t) => {
  const { repository, folder } = copied(t)
  const progress: number[] = []
  let size = 0
  const found = await findings(repository, {
    onProgress: (now) => {
      progress.push(now.position)
      size = now.size
    },
  })
  t.strictSame(
    found.map(inShort),
    ALL.map((image) => `image ${image} good`),
  )
  t.ok(found.every(({ read }) => read))
  t.strictSame(
    progress,
    [...progress].sort((a, b) => a - b),
    'progress goes on',
  )
  t.equal(progress.at(-1), size)
  t.equal(
    size,
    ALL.reduce((sum, image) => sum + statSync(join(folder, image)).size, 0),
  )
  const listed = await listRepository(repository)
  t.match(
    listed,
    [0, 1, 2].map(() => ({ verified: { same: true } })),
  )
  // Of a copy that lost its times, they come back: nobody needs to read it again for them.
  utimesSync(join(folder, 'vda.p1.qcow2'), 1, 1)
  t.ok((await findings(repository)).every(({ same }) => same))
  const { mtimeMs } = statSync(join(folder, 'vda.p1.qcow2'), { bigint: true })
  t.equal(Number(mtimeMs), Date.parse(listed[1].disks[0].modified))
})

const IN_USE = await open(join(made.directory, 'used'), 'w+')
t.teardown(() => IN_USE.close())

/** What is wrong, and what is found besides good images. */
const FAULTS: [string, (folder: string) => void | Promise<void>, string[]][] = [
  [
    'a bit of data',
    (folder) => {
      flipData(join(folder, 'vda.p0.qcow2'))
    },
    [
      'image vda.p0.qcow2 DIFFERENT',
      'image vda.p1.qcow2 bad on vda.p0.qcow2',
      'image vda.p2.qcow2 bad on vda.p0.qcow2',
    ],
  ],
  [
    'a refcount',
    (folder) => {
      const path = join(folder, 'vda.p1.qcow2')
      flip(path, Number(peek64(path, Number(peek64(path, 48)))) + 1)
    },
    ['image vda.p1.qcow2 BAD_IMAGE', 'image vda.p2.qcow2 bad on vda.p1.qcow2'],
  ],
  [
    'an image that was cut off, and one that is gone',
    (folder) => {
      truncateSync(join(folder, 'vda.p2.qcow2'), 65536)
      rmSync(join(folder, 'vda.p0.qcow2'))
    },
    [
      'missing vda.p0.qcow2 IO',
      'image vda.p1.qcow2 bad on vda.p0.qcow2',
      'image vda.p2.qcow2 DIFFERENT on vda.p0.qcow2',
    ],
  ],
  [
    'a record that is none',
    (folder) => truncateSync(join(folder, 'p1.json'), 100),
    ['record p1.json BAD_RECORD', 'image vda.p2.qcow2 BAD_IMAGE'],
  ],
  [
    'a record that is gone',
    (folder) => rmSync(join(folder, 'p1.json')),
    ['orphan vda.p1.qcow2 bad', 'orphan vdb.p1.qcow2 bad', 'image vda.p2.qcow2 BAD_IMAGE'],
  ],
  [
    'a definition without a record',
    (folder) => writeFileSync(join(folder, 'p9.xml'), '<domain/>'),
    ['orphan p9.xml bad'],
  ],
  [
    'a parent that is another one',
    (folder) => edit(folder, 'p1', (record) => Object.assign(record, { id: 'other' })),
    ['image vda.p2.qcow2 BAD_IMAGE'],
  ],
  [
    'points that build on each other',
    (folder) => {
      const parent = { kind: 'incremental', parent: 'p2' }
      const { id } = JSON.parse(readFileSync(join(folder, 'p2.json'), 'utf8'))
      edit(folder, 'p1', ({ disks }) => Object.assign(disks[0], { ...parent, parentId: id }))
    },
    ['image vda.p2.qcow2 BAD_IMAGE', 'image vda.p1.qcow2 DIFFERENT on vda.p2.qcow2'],
  ],
  [
    'another backing file',
    (folder) => {
      const image = join(folder, 'vda.p2.qcow2')
      qemuImg('rebase', '-u', '-f', 'qcow2', '-F', 'qcow2', '-b', 'vda.p0.qcow2', image)
    },
    ['image vda.p2.qcow2 DIFFERENT'],
  ],
  [
    'a backing file as another format',
    (folder) => {
      const image = join(folder, 'vda.p2.qcow2')
      qemuImg('rebase', '-u', '-f', 'qcow2', '-F', 'raw', '-b', 'vda.p1.qcow2', image)
    },
    ['image vda.p2.qcow2 DIFFERENT'],
  ],
  [
    'an image that leads elsewhere',
    (folder) => {
      renameSync(join(folder, 'vda.p0.qcow2'), join(folder, '..', '..', 'elsewhere'))
      symlinkSync('../../elsewhere', join(folder, 'vda.p0.qcow2'))
    },
    ['image vda.p1.qcow2 NOT_ALLOWED', 'image vda.p2.qcow2 bad on vda.p1.qcow2'],
  ],
  [
    'an image that a machine runs on',
    (folder) => {
      rmSync(join(folder, 'vdb.p0.qcow2'))
      symlinkSync(join(made.directory, 'used'), join(folder, 'vdb.p0.qcow2'))
      lockFile(IN_USE, 'used', WRITING)
    },
    ['image vdb.p0.qcow2 IN_USE'],
  ],
  [
    'what a killed run left',
    (folder) => {
      const journal = { version: 1, run: 'aaaaaaaaaaaa', point: 'p3', disks: ['vda'], files: [] }
      writeFileSync(join(folder, '.run.json'), JSON.stringify(journal))
      writeFileSync(join(folder, 'vda.p3.qcow2'), '')
      writeFileSync(join(folder, '.vda.p3.qcow2.0123456789ab.partial'), '')
    },
    ['leftover .run.json good', 'leftover .vda.p3.qcow2.0123456789ab.partial good'],
  ],
  [
    'journals that cannot be read',
    (folder) => {
      writeFileSync(join(folder, '.run.json'), '{')
      writeFileSync(join(folder, '.prune.json'), '{"version": 2}')
    },
    ['record .run.json BAD_RECORD', 'record .prune.json UNSUPPORTED'],
  ],
  [
    "others' files",
    (folder) => {
      for (const name of ['notes.txt', 'x.qcow2', '.hidden', '-x.json']) {
        writeFileSync(join(folder, name), '')
      }
      mkdirSync(join(folder, 'lost+found'))
      writeFileSync(join(folder, '..', 'README'), '')
    },
    [],
  ],
  [
    'no room to remember it',
    (folder) => mkdirSync(join(folder, '.verified.json')),
    ['memory .verified.json good'],
  ],
]

for (const [what, act, expected] of FAULTS) {
  t.test(`what is wrong is found, and all else is looked at: ${what}`, async (t) => {
    const { repository, folder } = copied(t)
    await act(folder)
    const found = (await findings(repository)).map(inShort)
    t.strictSame(
      found.filter((one) => !/^image .* good$/.test(one)),
      expected,
    )
    const images = found.filter((one) => /^(image|missing) /.test(one)).length
    const lost = /^a record that is/.test(what) ? 2 : 0
    t.equal(images, ALL.length - lost, 'one result for each image')
  })
}

t.test('a hostile image is bad, and ends nothing', async (t) => {
  const { repository, folder } = copied(t)
  const names = Object.keys(HOSTILE_IMAGES)
  for (const name of someOf(names, 3)) {
    const image = HOSTILE_IMAGES[name]()['disk.qcow2']
    writeFileSync(join(folder, 'vda.p0.qcow2'), image)
    edit(folder, 'p0', ({ disks }) => Object.assign(disks[0], { fileSize: image.length }))
    const found = await findings(repository)
    t.match(
      found.map(({ same }) => same),
      [false, true, false, true, false, true],
      name,
    )
  }
})

t.test('single points, with what they build on; and what there is not', async (t) => {
  const { repository, folder } = copied(t)
  truncateSync(join(folder, 'p2.json'), 10)
  const p1 = await findings(repository, { only: [{ machine: 'web', point: 'p1' }] })
  t.strictSame(
    p1.map(inShort),
    ALL.slice(0, 4).map((image) => `image ${image} good`),
  )
  const p2 = await findings(repository, { only: [{ machine: 'web', point: 'p2' }] })
  t.strictSame(p2.map(inShort), ['record p2.json BAD_RECORD'])
  for (const only of [{ machine: 'db' }, { machine: 'web', point: 'p9' }, { machine: '../x' }]) {
    await t.rejects(findings(repository, { only: [only] }), { code: 'USAGE' })
  }
  t.strictSame(readFileSync(join(folder, '.verified.json'), 'utf8').match(/p2\.qcow2/g), null)
})

t.test(
  'a sample every day has read everything in the end, and what was bad stays so',
  async (t) => {
    const { repository, folder } = copied(t)
    flipData(join(folder, 'vdb.p1.qcow2'))
    const read = new Set<string>()
    let isKnown = false
    for (let day = 1; read.size < ALL.length; day++) {
      const found = await findings(repository, { sample: 5 })
      t.equal(found.length, ALL.length, 'all are looked at')
      const today = found.filter((one) => one.read).map(({ file }) => file)
      t.notOk(
        today.some((file) => read.has(file)),
        'none is read twice',
      )
      for (const file of today) read.add(file)
      isKnown ||= today.some((file) => file.endsWith('vdb.p1.qcow2'))
      const bad = found.filter(({ same }) => !same)
      t.strictSame(
        bad.map(({ disk, point }) => `${disk}.${point}`),
        isKnown ? ['vdb.p1'] : [],
      )
      if (day > 20) throw new Error('it takes longer than three weeks')
    }
    t.match(await listRepository(repository), [
      { verified: { same: true } },
      { verified: { same: false } },
      { verified: { same: true } },
    ])
  },
)

t.test('a signal ends it, and what was read is remembered', async (t) => {
  const { repository, folder } = copied(t)
  const controller = new AbortController()
  const reason = new Error('enough')
  const run = async () => {
    for await (const _ of verifyRepository(repository, { signal: controller.signal })) {
      controller.abort(reason)
    }
  }
  await t.rejects(run(), { code: 'ABORTED', cause: reason })
  const { images } = JSON.parse(readFileSync(join(folder, '.verified.json'), 'utf8'))
  t.strictSame(Object.keys(images), ['vda.p0.qcow2'])
  t.ok(existsSync(join(folder, '.lock')))
})

t.test('several verify at once, while a backup is made', async (t) => {
  made.write(3)
  const runs = [1, 2, 3].map(() => findings(made.repository))
  await backupMachine(made.machine, made.repository, { name: 'web', checkpoint: 'p3' })
  for (const found of await Promise.all(runs)) {
    t.strictSame(
      found.filter(({ kind, same }) => kind === 'memory' || !same),
      [],
    )
    t.ok(found.length >= ALL.length)
  }
  const { images } = JSON.parse(readFileSync(join(made.folder, '.verified.json'), 'utf8'))
  t.ok(Object.keys(images).length >= ALL.length)
})
