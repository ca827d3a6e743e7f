import t from 'tap'
import { ReferenceCounts } from '../../lib/check/reference-counts.ts'
import { Report } from '../../lib/check/report.ts'
import type { Qcow2Header } from '../../lib/format/qcow2/header-fields.ts'

const CLUSTER = 512
const FILE = 16 * CLUSTER

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
