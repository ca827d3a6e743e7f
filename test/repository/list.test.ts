/** Listing repositories: many points, chains of all kinds, and tables that fit a terminal. */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { run } from '../../lib/cli/run.ts'
import { listRepository } from '../../lib/index.ts'

t.setTimeout(180_000)

const HOUR = 3_600_000
const SIZES = { dataBytes: 0, zeroBytes: 0, unchangedBytes: 0, fileSize: 0, virtualSize: 0 }
const CONTENT = { algorithm: 'blake2b-256', blockSize: 2 ** 22, checksum: 'c' }

/** The record of a point of one disk. */
function recordOf(machine: string, point: string, hours: number, parent?: string): object {
  const time = new Date(Date.now() - hours * HOUR).toISOString()
  const on = parent === undefined ? {} : { parent, parentId: `id of ${parent}` }
  const kind = parent === undefined ? 'full' : 'incremental'
  const image = `vda.${point}.qcow2`
  const disk = { name: 'vda', image, kind, ...on, ...SIZES, modified: time, content: CONTENT }
  const disks = [{ ...disk, allocatedBytes: 1536 * 1024 }]
  return { version: 1, machine, point, id: `id of ${point}`, ...on, time, disks, versions: {} }
}

function setUp(test: Test) {
  const repository = test.testdir({ 'repository.json': '{"format": 1}', web: {}, db: {} })
  const put = (machine: string, point: string, hours: number, parent?: string) => {
    const text = JSON.stringify(recordOf(machine, point, hours, parent))
    writeFileSync(join(repository, machine, `${point}.json`), text)
  }
  return { repository, put }
}

/** What the command prints for people. */
async function printed(repository: string): Promise<string> {
  let text = ''
  const status = await run(() => ['list', '--repo', repository], {
    async stdout(more) {
      text += more
    },
    stderr(more) {
      text += more
    },
    canDraw: false,
    stdoutIsTerminal: false,
    writeBytes: async () => {},
    columns: 80,
    interruptible: (work) => work(new AbortController().signal),
  })
  return status === 0 ? text : `status ${status}: ${text}`
}

t.test('more records than are read at once, some of them large', async (t) => {
  const { repository, put } = setUp(t)
  const points = Array.from({ length: 700 }, (_, i) => `p${String(i).padStart(3, '0')}`)
  for (const [i, point] of points.entries()) put('web', point, 700 - i, points[i - 1])
  for (const point of ['p010', 'p699']) {
    const large = { ...recordOf('web', point, 1, 'p009'), padding: ' '.repeat(2 ** 20) }
    writeFileSync(join(repository, 'web', `${point}.json`), JSON.stringify(large))
  }
  const listed = await listRepository(repository)
  const times = listed.map(({ time }) => time)
  t.strictSame(times, [...times].sort(), 'oldest first')
  t.strictSame(new Set(listed.map(({ point }) => point)), new Set(points))
  t.equal(listed.find(({ point }) => point === 'p009')?.depth, 10)
  t.equal(listed.find(({ point }) => point === 'p699')?.depth, 11)
  rmSync(join(repository, 'web', 'p300.json'))
  writeFileSync(join(repository, 'web', 'p600.json'), '{')
  await t.rejects(listRepository(repository), { code: 'BAD_RECORD', message: /p600\.json: is not/ })
  const stop = AbortSignal.abort()
  await t.rejects(listRepository(repository, { signal: stop }), { code: 'ABORTED' })
})

t.test('a table for each machine, which fits a terminal', async (t) => {
  const { repository, put } = setUp(t)
  put('web', '20261129T115200Z', 1000, undefined)
  put('web', '20261129T115201Z', 47.5, '20261129T115200Z')
  put('web', '20261129T115202Z', 0.5, '20261129T115201Z')
  put('db', 'orphan', -1, 'gone')
  const images = {
    'vda.20261129T115200Z.qcow2': { time: new Date(Date.now() - 72 * HOUR), same: true },
    'vda.20261129T115201Z.qcow2': { time: new Date(Date.now() - 2 * HOUR), same: false },
  }
  const verified = Object.entries(images).map(([name, one]) => [name, { ...one, checksum: 'c' }])
  const memory = { version: 1, images: Object.fromEntries(verified) }
  writeFileSync(join(repository, 'web', '.verified.json'), JSON.stringify(memory))
  t.equal(
    await printed(repository),
    `db: 1 point, 1.5 MiB
  POINT       AGE  KIND     SIZE   CHAIN  PARENT  VERIFIED
  orphan  to come  incr  1.5 MiB  broken  gone       never

web: 3 points, 4.5 MiB
  POINT                AGE  KIND     SIZE  CHAIN  PARENT            VERIFIED
  20261129T115200Z    41 d  full  1.5 MiB      1  -                      3 d
  20261129T115201Z    47 h  incr  1.5 MiB      2  20261129T115200Z  BAD, 2 h
  20261129T115202Z  30 min  incr  1.5 MiB      3  20261129T115201Z  BAD, 2 h
`,
  )
  put('db', 'a-name-that-is-much-longer-than-a-time', 1, 'orphan')
  const [, heading] = (await printed(repository)).split('\n')
  t.match(heading, /CHAIN {2}VERIFIED$/, 'what does not fit is left out')
})

t.test('names are printed as text', async (t) => {
  const { repository } = setUp(t)
  const name = 'a\u001b[31m'
  mkdirSync(join(repository, 'a%1B[31m'))
  const record = JSON.stringify(recordOf(name, 'p', 1))
  writeFileSync(join(repository, 'a%1B[31m', 'p.json'), record)
  t.match(await printed(repository), /^a\\x1b\[31m: 1 point/)
})
