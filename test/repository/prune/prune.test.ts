/** Random histories, pruned by random policies: every kept point is as the disks were. */
import t from 'tap'
import { backupMachine, pruneRepository } from '../../../lib/index.ts'
import { effort } from '../../support/effort.ts'
import { PrunedMachine } from '../../support/pruned-machine.ts'
import { qemuImgCheck, qemuImgSame } from '../../support/qemu.ts'
import { seeded } from '../../support/random.ts'
import { RestingMachine } from '../../support/repository.ts'

t.setTimeout(1_800_000)

const SEED = Number(process.env.SEED ?? Date.now() % 2 ** 31)

const RULES = [
  'keepLast',
  'keepHourly',
  'keepDaily',
  'keepWeekly',
  'keepMonthly',
  'keepYearly',
] as const

/** Some backups: full and incremental, of all disks or one, with clusters of all sizes, compressed or not. */
async function more(m: PrunedMachine): Promise<void> {
  for (let n = 1 + m.below(6); n > 0; n--) {
    m.change()
    await m.backup({
      full: m.below(8) === 0,
      clusterSize: m.below(2) === 0 ? 512 << m.below(8) : 65536,
      compress: ([undefined, undefined, 'zlib', 'zstd'] as const)[m.below(4)],
      disks: m.below(5) === 0 ? ['vda'] : undefined,
    })
  }
}

for (let i = 0; i < effort(1, 60); i++) {
  t.test(`history ${i} of seed ${SEED}`, async (t) => {
    const m = new PrunedMachine(t, i % 2 === 0 ? ['vda', 'vdb'] : ['vda'], seeded(SEED + i))
    for (let round = 0; round < effort(2, 4); round++) {
      await more(m)
      const rules = RULES.filter(() => m.below(3) === 0)
      const counts = rules.map((rule) => [rule, 1 + m.below(3)])
      const policy = { keepYearly: 1, ...Object.fromEntries(counts) }
      const what = `round ${round}, ${JSON.stringify(policy)}`
      const before = m.points()
      const plan = await m.prune({ ...policy, dryRun: true })
      t.strictSame(m.points(), before, `${what}: a dry run removes nothing`)
      const result = await m.prune(policy)
      t.equal(result.failure, undefined, what)
      t.strictSame(result.points, plan.points, `${what}: what the dry run says is done`)
      const wanted = plan.points.filter(({ keep }) => keep).map(({ point }) => point)
      t.strictSame(m.points(), wanted, `${what}: the points that are kept`)
      t.strictSame(await m.differences(wanted), [], `${what}: all are as the disks were`)
      t.strictSame(m.strangers(), [], `${what}: nothing else is there`)
    }
    const unsound = m.images().filter((image) => qemuImgCheck(image).status !== 0)
    t.strictSame(unsound, [], 'all are sound to QEMU')
    const last = m.records().at(-1)!
    for (const { name, image } of last.disks) {
      const model = { path: m.model(last.point, name), format: 'raw' }
      const path = `${m.folder}/${image}`
      t.ok(qemuImgSame({ path, format: 'qcow2' }, model), `QEMU reads ${name} as it was`)
    }
  })
}

t.test('the next backup builds on what was made again, and is incremental', async (t) => {
  const m = new RestingMachine(t)
  const contents: Buffer[][] = []
  const backUp = async () => {
    const number = contents.length
    m.write(number)
    contents.push(m.contents())
    const options = { name: 'web', checkpoint: `p${number}`, rebuild: true }
    return await backupMachine(m.machine, m.repository, options)
  }
  for (let i = 0; i < 3; i++) await backUp()
  for await (const { removed, failure } of pruneRepository(m.repository, { keepLast: 1 })) {
    t.strictSame([removed, failure], [['p1', 'p0'], undefined])
  }
  t.match(m.records(), [{ point: 'p2', disks: [{ kind: 'full' }, { kind: 'full' }] }])
  m.compare('p2', contents[2])
  const { disks, parent } = await backUp()
  t.match(disks, [
    { kind: 'incremental', parent: 'p2' },
    { kind: 'incremental', parent: 'p2' },
  ])
  t.equal(parent, 'p2')
  m.compare('p3', contents[3])
  m.requireTidy('after the backup')
})
