import t from 'tap'
import type { Finding } from '../../lib/check/finding.ts'
import { ReferenceCounts } from '../../lib/check/reference-counts.ts'
import { Report } from '../../lib/check/report.ts'
import type { Qcow2Header } from '../../lib/format/qcow2/header-fields.ts'

const CLUSTER = 512
const FILE = 16 * CLUSTER

t.test('a cluster that is counted many times at once', async (t) => {
  for (const refcountOrder of [3, 4, 5]) {
    const header = { clusterSize: CLUSTER, refcountOrder } as Qcow2Header
    const said: string[][] = [[], []]
    const [one, other] = said.map((lines) => {
      const say = ({ text }: Finding) => lines.push(text)
      return new ReferenceCounts(header, FILE, new Report(say, { path: 'x', size: FILE } as never))
    })
    // In the file, cut by its end, past it, and where a number of 32 bits would be that of the first.
    for (const cluster of [3, 15, 16, 40, 3 + 2 ** 32]) {
      for (const times of [1, 2, 252, 2]) {
        one.addTimes(cluster * CLUSTER, times)
        for (let i = 0; i < times; i++) other.add(cluster * CLUSTER, CLUSTER)
      }
    }
    t.strictSame(said[0], said[1], 'what is wrong')
    for (const cluster of [2, 3, 4, 15, 16]) t.equal(one.get(cluster), other.get(cluster))
    t.match(one, { additions: other.additions, shared: true, clusters: other.clusters })
  }
})

t.test('clusters are found free after what takes any number of them, in a few steps', async (t) => {
  const report = new Report(() => {}, { path: 'image', size: FILE } as never)
  const header = { clusterSize: CLUSTER, refcountOrder: 4 } as Qcow2Header
  const counts = new ReferenceCounts(header, FILE, report)
  counts.add(0, 3 * CLUSTER)
  counts.add(5 * CLUSTER, CLUSTER)
  // Far past the end of the file, and of what a loop can go through.
  const [first, last] = [8, 8 + 2 ** 30]
  counts.add(first * CLUSTER, (last - first) * CLUSTER)
  const metadata = { first: last + 1, last: last + 2 ** 30 }
  let asked = 0
  const taken = (cluster: number) => {
    asked++
    return cluster >= metadata.first && cluster < metadata.last ? metadata.last : cluster
  }
  t.equal(counts.allocate(2, 0, taken), 3, 'between two that are referenced')
  t.equal(counts.allocate(2, 0, taken), 6, 'before what the file does not have')
  t.equal(counts.allocate(1, 0, taken), last, 'right after it')
  t.equal(counts.allocate(1, 0, taken), metadata.last, 'after what was not counted')
  t.ok(asked < 100, `${asked} steps`)
})
