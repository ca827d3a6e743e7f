/**
 * Prunes that end between any two of their changes of names: every kept point can be restored at once, and the next
 * run, whatever it is, leaves all as an undisturbed prune does, or as it was.
 */
import { cpSync, existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { MachinePrune } from '../../../lib/index.ts'
import { Repository } from '../../../lib/repository/repository.ts'
import { effort } from '../../support/effort.ts'
import { cutOffAt } from '../../support/power-cut.ts'
import { PrunedMachine } from '../../support/pruned-machine.ts'
import { seeded } from '../../support/random.ts'

t.setTimeout(1_800_000)

/**
 * Three days: p0 goes and p1, over it, becomes full; p2 and p3, which has one disk, become part of p4; p5 is the
 * newest.
 */
async function history(m: PrunedMachine): Promise<void> {
  const points = [{}, {}, { hours: 24 }, { disks: ['vda'] }, {}, { hours: 24 }]
  for (const options of points) {
    m.change()
    await m.backup({ hours: 1, ...options })
  }
}

/** What the next run does first: a backup of the machine does. */
async function clean({ repository }: PrunedMachine): Promise<void> {
  const folder = await (await Repository.open(repository)).lock('web')
  await folder.clean()
  await folder.close()
}

t.test('a prune that is cut off at any change of a name', async (t) => {
  const m = new PrunedMachine(t, effort(['vda'], ['vda', 'vdb']), seeded(3))
  await history(m)
  const prune = () => m.prune({ keepDaily: 3 })
  const copy = (from: string, to: string) => {
    rmSync(to, { recursive: true, force: true })
    cpSync(from, to, { recursive: true, preserveTimestamps: true })
  }
  const saved = `${m.repository}.saved`
  copy(m.repository, saved)
  const { calls } = await cutOffAt(Number.POSITIVE_INFINITY, prune)
  const kept = m.points()
  t.strictSame(kept, ['p1', 'p4', 'p5'])
  t.strictSame(await m.differences(kept), [])
  t.ok(calls > 20, `${calls} changes of names`)
  const ends = new Set<string>()
  // Each kind of change is met in some run.
  for (let n = effort(1 + (Date.now() % 20), 1); n <= calls; n += effort(20, 1)) {
    copy(saved, m.repository)
    let failure: MachinePrune['failure']
    const { isCut } = await cutOffAt(n, async () => {
      failure = (await prune()).failure
    })
    t.ok(isCut, `cut off at ${n}`)
    const isDecided = existsSync(join(m.folder, '.prune.json'))
    if (isDecided) t.match(failure?.message, /the next run finishes the prune$/)
    t.strictSame(await m.differences(kept), [], `cut off at ${n}: all kept points are there`)
    if (n % 2 === 0) {
      await clean(m)
      ends.add(m.points().join())
      t.strictSame(m.strangers(), [], `cut off at ${n}, then the next run: nothing is left`)
      t.strictSame(await m.differences(m.points()), [], `cut off at ${n}, then the next run`)
      continue
    }
    t.equal((await prune()).failure, undefined)
    t.strictSame(m.points(), kept, `cut off at ${n}, then a prune: the points`)
    t.strictSame(m.strangers(), [], `cut off at ${n}, then a prune: nothing is left`)
    t.strictSame(await m.differences(kept), [], `cut off at ${n}, then a prune`)
  }
  // Before, after the first group, the upper one, and in the end.
  const possible = ['p0,p1,p2,p3,p4,p5', 'p0,p1,p4,p5', 'p1,p4,p5']
  t.strictSame(
    [...ends].filter((end) => !possible.includes(end)),
    [],
  )
})
