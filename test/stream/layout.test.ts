import t from 'tap'
import { COLUMNS, ROW } from '../../lib/plan/rows.ts'
import { ClusterRuns } from '../../lib/stream/cluster-runs.ts'
import { layOut, tablesOf } from '../../lib/stream/layout.ts'
import { randomNumbers } from '../support/changes.ts'

const KINDS: Record<string, number> = { d: ROW.data, z: ROW.zero, '-': ROW.skip }
const CLUSTER = 512

/** Rows of runs such as `d512 z1024`. */
function rowsOf(plan: string): Float64Array {
  const runs = plan.split(' ').map((run) => [KINDS[run[0]], Number(run.slice(1))])
  const rows = new Float64Array(runs.length * COLUMNS)
  let start = 0
  for (const [i, [kind, length]] of runs.entries()) {
    rows.set([kind, start, length], i * COLUMNS)
    start += length
  }
  return rows
}

function clustersOf(plan: string): string {
  const runs = new ClusterRuns(CLUSTER)
  runs.add(rowsOf(plan))
  return [...runs].map(({ kind, first, end }) => `${kind[0]}${first}-${end}`).join(' ')
}

t.test('clusters of which anything is data are data', async (t) => {
  t.equal(clustersOf('d512 -512 d1'), 'd0-1 d2-3')
  t.equal(clustersOf('-100 d1 -923 z512'), 'd0-1 z2-3')
  t.equal(clustersOf('z700 d100 z736'), 'z0-1 d1-2 z2-3')
  t.equal(clustersOf('d700 z836 d1'), 'd0-2 z2-3 d3-4')
  t.equal(clustersOf('z100 d100 z312'), 'd0-1')
  t.equal(clustersOf('d512 d512 z512 z512'), 'd0-2 z2-4')
  t.equal(clustersOf('-1024'), '')
})

t.test('random rows, against clusters one by one', async (t) => {
  const random = randomNumbers(8)
  for (let round = 0; round < 200; round++) {
    const runs = new ClusterRuns(CLUSTER)
    const model: string[] = []
    let start = 0
    for (let batch = 0; batch < 4; batch++) {
      const plan = Array.from({ length: 1 + random(6) }, () => {
        const kind = 'dz-'[random(3)]
        return { kind, length: 1 + random(4 * CLUSTER) }
      })
      const rows = rowsOf(plan.map(({ kind, length }) => `${kind}${length}`).join(' '))
      for (let at = 0; at < rows.length; at += COLUMNS) rows[at + 1] += start
      runs.add(rows)
      for (const { kind, length } of plan) {
        for (
          let i = Math.floor(start / CLUSTER);
          kind !== '-' && i < Math.ceil((start + length) / CLUSTER);
          i++
        ) {
          if (model[i] !== 'd') model[i] = kind
        }
        start += length
      }
    }
    const found: string[] = []
    let end = 0
    for (const run of runs) {
      t.ok(run.first >= end && run.end > run.first, 'in order')
      end = run.end
      for (let i = run.first; i < run.end; i++) found[i] = run.kind[0]
    }
    t.strictSame({ ...found }, { ...model })
  }
})

t.test('L2 tables: those of nothing but zeroes are told', async (t) => {
  const tables = (plan: string) => {
    const runs = new ClusterRuns(CLUSTER)
    runs.add(rowsOf(plan))
    return [...tablesOf(runs, 4)].map(({ index, isZero }) => `${index}${isZero ? 'z' : ''}`).join()
  }
  t.equal(tables(`z${8 * CLUSTER}`), '0z,1z')
  t.equal(tables(`z${9 * CLUSTER}`), '0z,1z,2')
  t.equal(tables(`-${CLUSTER} z${8 * CLUSTER}`), '0,1z,2')
  t.equal(tables(`d${CLUSTER} -${6 * CLUSTER} d${CLUSTER}`), '0,1')
  t.equal(tables(`-${100 * CLUSTER} d${CLUSTER}`), '25')
})

t.test('the parts lie one behind the other, and refcounts count all of them', async (t) => {
  const random = randomNumbers(9)
  for (const clusterBits of [9, 12, 16, 21]) {
    for (const sharesTables of [true, false]) {
      const clusterSize = 2 ** clusterBits
      const runs = new ClusterRuns(clusterSize)
      const plan = Array.from({ length: 40 }, () => `${'dz-'[random(3)]}${random(2 ** 31)}`)
      const rows = rowsOf(plan.join(' '))
      runs.add(rows)
      const last = rows.length - COLUMNS
      const size = rows[last + 1] + rows[last + 2]
      const layout = layOut(runs, { clusterBits, size, sharesTables })
      const { refcountTable, refcountBlocks, l1, sharedTables, otherTables, data } = layout
      const shared = { first: sharedTables.first, clusters: sharedTables.users.length }
      let next = 1
      for (const part of [refcountTable, refcountBlocks, l1, shared, otherTables, data]) {
        t.equal(part.first, next)
        next += part.clusters
      }
      t.equal(layout.clusters, next)
      t.ok(refcountBlocks.clusters * (clusterSize / 2) >= next, 'a refcount for each')
      t.ok((refcountBlocks.clusters - 1) * (clusterSize / 2) < next, 'and no block too many')
      t.ok(refcountTable.clusters * (clusterSize / 8) >= refcountBlocks.clusters)
      if (!sharesTables) t.equal(shared.clusters, 0)
    }
  }
})

t.test('tables that many share are several, as far as a refcount counts', async (t) => {
  const runs = new ClusterRuns(512)
  const tables = 70_000
  runs.add(rowsOf(`z${tables * 64 * 512}`))
  const layout = layOut(runs, { clusterBits: 9, size: tables * 64 * 512, sharesTables: true })
  t.strictSame(layout.sharedTables.users, [65535, tables - 65535])
  t.equal(layout.otherTables.clusters, 0)
})

t.test('a file that QEMU would not open is refused', async (t) => {
  const runs = new ClusterRuns(512)
  runs.add(rowsOf(`d${2 ** 40}`))
  t.throws(() => layOut(runs, { clusterBits: 9, size: 2 ** 40, sharesTables: true }), {
    code: 'USAGE',
    argument: 'clusterSize',
  })
})
