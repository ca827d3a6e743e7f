/** Random histories, pruned by random policies: every kept point is as the disks were. */
import t from 'tap'
import { effort } from '../../support/effort.ts'
import { PrunedMachine } from '../../support/pruned-machine.ts'
import { qemuImgCheck, qemuImgSame } from '../../support/qemu.ts'
import { seeded } from '../../support/random.ts'

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
      // A file system rounds each file up.
      const least = plan.freedBytes - 65536 * plan.joined.length
      t.ok(result.freedBytes >= least, `${what}: no less is freed than it says`)
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
