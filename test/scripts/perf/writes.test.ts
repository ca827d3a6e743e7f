import t from 'tap'
import { latency, parseWrites } from '../../../scripts/perf/writes.ts'

t.test('the latency of writes is that of those under way in a span', (t) => {
  const writes = parseWrites('0 1000000000\n2000000000 3000000000\n6000000000 500000000\n')
  t.equal(writes.length, 3)
  t.equal(latency(writes, 50), 1)
  t.equal(latency(writes, 99), 3)
  // One that began before and one that ended after are under way.
  t.equal(latency(writes, 99, 4_000_000_000n, 6_000_000_000n), 3)
  t.equal(latency(writes, 0, 5_500_000_000n, 7_000_000_000n), 0.5)
  t.throws(() => latency(writes, 50, 8_000_000_000n), { code: 'IO', why: 'none was under way' })
  t.end()
})
