import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  backupMachine,
  pruneRepository,
  type ReportedMachine,
  type RepositoryReport,
  reportRepository,
} from '../../lib/index.ts'
import { effort } from '../support/effort.ts'
import { requireSoundMarkup } from '../support/markup.ts'
import { recordsOf, writeRecords } from '../support/recorded.ts'
import { RestingMachine } from '../support/repository.ts'
import { HOSTILE_NAMES } from './canned.ts'

t.setTimeout(300_000)

const HOUR = 3_600_000
const DAY = 24 * HOUR

/** A repository of one machine with a point a day, the last two hours old. */
function daily(t: Test, { points = 10, age = 2 * HOUR, machine = 'web', fullEvery = 0 } = {}) {
  const repository = join(t.testdir(), 'repo')
  const first = Date.now() - age - (points - 1) * DAY
  const records = recordsOf({ machine, points, first, interval: DAY, fullEvery })
  writeRecords(repository, records)
  return { repository, records, folder: join(repository, machine) }
}

function kindsOf({ findings }: ReportedMachine): string[] {
  return findings.map(({ kind, level }) => `${level} ${kind}`)
}

async function only(repository: string): Promise<ReportedMachine> {
  const { report } = await reportRepository(repository)
  t.equal(report.machines.length, 1)
  return report.machines[0]
}

t.test('a repository is reported as its records are', async (t) => {
  const m = new RestingMachine(t)
  for (const [i, checkpoint] of ['p0', 'p1', 'p2'].entries()) {
    m.write(i)
    await backupMachine(m.machine, m.repository, { name: 'web', checkpoint })
  }
  const { report, html } = await reportRepository(m.repository, { keepLast: 1 })
  const [{ points, storedBytes }] = report.machines
  t.match(points, [
    { point: 'p0', kind: 'full', depth: 1, retention: { keep: false } },
    { point: 'p1', kind: 'mixed', depth: 2, retention: { keep: false } },
    { point: 'p2', kind: 'mixed', depth: 3, retention: { keep: true } },
  ])
  t.strictSame(
    points[2].disks.map(({ name, kind }) => [name, kind]),
    [
      ['vda', 'incremental'],
      ['vdb', 'full'],
    ],
  )
  const stored = m.records().flatMap((record) => {
    return (record.disks as unknown as { allocatedBytes: number }[]).map((d) => d.allocatedBytes)
  })
  t.equal(
    storedBytes,
    stored.reduce((sum, bytes) => sum + bytes, 0),
  )
  t.equal(report.storedBytes, storedBytes)
  for await (const plan of pruneRepository(m.repository, { keepLast: 1, dryRun: true })) {
    const { joined, neededBytes, freedBytes } = plan
    t.strictSame(report.machines[0].prune, { remade: joined.length, neededBytes, freedBytes })
    t.equal(joined.length, 1)
  }
  t.match(report.findings, [{ level: 'warning', text: 'web: no point was ever verified' }])
  requireSoundMarkup(t, html)
  t.match(html, /The next prune/)
  t.match(html, /Keeps of each machine 1 last\./)
  t.notMatch((await reportRepository(m.repository)).html, /The next prune/)
})

t.test('what calls for action is found', async (t) => {
  const unverified = 'warning unverified'
  t.strictSame(kindsOf(await only(daily(t).repository)), [unverified])
  const late = await only(daily(t, { age: 4 * DAY }).repository)
  t.strictSame(kindsOf(late), [unverified, 'warning overdue'])
  t.equal(late.usualInterval, DAY)
  t.strictSame(kindsOf(await only(daily(t, { age: 2.9 * DAY }).repository)), [unverified])
  const two = daily(t, { points: 2, age: 90 * DAY })
  t.strictSame(kindsOf(await only(two.repository)), [unverified], 'two points are no habit')
  t.ok(kindsOf(await only(daily(t, { points: 95 }).repository)).includes('warning chain'))
  t.notOk(kindsOf(await only(daily(t, { points: 94 }).repository)).includes('warning chain'))
  t.ok(kindsOf(await only(daily(t, { age: -DAY }).repository)).includes('warning clock'))

  const damaged = daily(t)
  const at = (name: string) => join(damaged.folder, name)
  const { records } = damaged
  writeFileSync(at(`${records[1].point}.json`), '{')
  rmSync(at(records[5].disks[0].image))
  writeFileSync(at('vda.elsewhere.qcow2'), '')
  writeFileSync(at('.run.json'), '{}')
  writeFileSync(at('.vda.x.qcow2.0123456789ab.partial'), '')
  const found = await only(damaged.repository)
  t.strictSame(kindsOf(found), [
    ...['fault record', 'fault journal', 'fault missing', 'fault parent'],
    ...['warning orphan', unverified, 'note leftover'],
  ])
  t.equal(found.points.length, 9)
  t.equal(found.points[1].depth, undefined, 'what it builds on is not known')
  const { report } = await reportRepository(damaged.repository, { keepDaily: 2 })
  t.match(report.machines[0].prune?.failure, /json: is not JSON/)
  t.ok(kindsOf(report.machines[0]).includes('warning prune'))
})

t.test('outcomes of verification are reported', async (t) => {
  const { repository, folder, records } = daily(t, { fullEvery: 1 })
  const verify = (days: number, bad = -1) => {
    const time = new Date(Date.now() - days * DAY).toISOString()
    const images = records.map(({ disks: [{ image }] }, i) => {
      return [image, { time, same: i !== bad, checksum: '00' }]
    })
    const memory = { version: 1, images: Object.fromEntries(images) }
    writeFileSync(join(folder, '.verified.json'), JSON.stringify(memory))
  }
  verify(1)
  const fine = await reportRepository(repository)
  t.strictSame(kindsOf(fine.report.machines[0]), [])
  t.match(fine.report.findings, [{ level: 'good' }])
  t.match(fine.html, />10 of 10/)
  verify(30)
  t.strictSame(kindsOf(await only(repository)), ['warning unverified'])
  verify(1, 4)
  const bad = await reportRepository(repository)
  t.strictSame(kindsOf(bad.report.machines[0]), ['fault different'])
  t.match(bad.html, /not as recorded/)
})

t.test('many machines with the same trouble are one sentence', async (t) => {
  const repository = join(t.testdir(), 'repo')
  for (let i = 0; i < 20; i++) {
    const history = { machine: `vm-${i}`, points: 4, interval: DAY }
    writeRecords(repository, recordsOf({ ...history, first: Date.now() - 90 * DAY }))
  }
  mkdirSync(join(repository, 'of others'))
  const { report, html } = await reportRepository(repository)
  t.equal(report.machines.length, 20)
  t.strictSame(
    report.findings.map(({ text }) => text.replace(/:.*/, '')),
    [
      '20 machines have points that were not verified lately, or never',
      '20 machines have no new backup for several times the usual interval',
    ],
  )
  t.match(html, /class="filter"/)
})

t.test('names in a repository stay text on its page', async (t) => {
  const repository = join(t.testdir(), HOSTILE_NAMES[3].replaceAll('/', ''))
  for (const [i, machine] of HOSTILE_NAMES.entries()) {
    const history = { machine, points: 5, interval: DAY, disks: [machine, 'vda'] }
    const records = recordsOf({ ...history, first: Date.now() - 10 * DAY })
    const folderSafe = records.map((record) => ({
      ...record,
      disks: record.disks.map((disk, n) => ({ ...disk, image: `disk${n}.${record.point}.qcow2` })),
    }))
    writeRecords(repository, i % 2 === 0 ? folderSafe : folderSafe.slice(1))
  }
  const { html, report } = await reportRepository(repository, { keepDaily: 2 })
  t.strictSame(
    report.machines.map(({ machine }) => machine),
    [...HOSTILE_NAMES].sort(),
  )
  requireSoundMarkup(t, html)
  for (const name of HOSTILE_NAMES.slice(0, 4)) t.notOk(html.includes(name))
})

t.test('many points, times of any kind, and no points at all', async (t) => {
  const directory = t.testdir()
  const repository = join(directory, 'repo')
  const points = effort(300, 2000)
  const history = { machine: 'web', interval: 4 * HOUR, fullEvery: 120 }
  writeRecords(repository, recordsOf({ ...history, points, first: Date.UTC(2026, 0) }))
  const { html } = await reportRepository(repository, { keepDaily: 30 })
  t.ok(html.length < 50_000 + 500 * points, `${html.length} characters`)
  requireSoundMarkup(t, html)

  const odd = join(directory, 'odd')
  for (const [machine, first] of [
    ['ancient', Date.UTC(-20_000, 0)],
    ['far', Date.UTC(200_000, 0)],
  ] as const) {
    writeRecords(
      odd,
      recordsOf({ machine, points: 3, first, interval: 1 }).map((record, i) => {
        return { ...record, point: `p${i}`, disks: [] }
      }),
    )
  }
  requireSoundMarkup(t, (await reportRepository(odd, { keepYearly: 5 })).html)

  const none = join(directory, 'none')
  writeRecords(none, [])
  const empty = await reportRepository(none, { keepLast: 1 })
  t.match(empty.report, {
    machines: [],
    findings: [],
    storedBytes: 0,
  } satisfies Partial<RepositoryReport>)
  requireSoundMarkup(t, empty.html)
})

t.test('what is no repository is refused, and the page is written safely', async (t) => {
  const { repository } = daily(t)
  const output = join(repository, 'page.html')
  await t.rejects(reportRepository(join(repository, 'web'), { output }), { code: 'BAD_RECORD' })
  await t.rejects(reportRepository(`${repository}-none`, { output }), { code: 'IO' })
  const { html } = await reportRepository(repository, { output })
  t.equal(readFileSync(output, 'utf8'), html)
  await t.rejects(reportRepository(repository, { output }), { code: 'TARGET_EXISTS' })
  await reportRepository(repository, { output, force: true })
  await t.rejects(reportRepository(repository, { keepLast: -1 }), {
    code: 'USAGE',
    argument: 'keepLast',
  })
})
