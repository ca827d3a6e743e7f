import t from 'tap'
import { parseUsage, resetPeak, usageOf } from '../../../../scripts/perf/servers/usage.ts'

t.test('the figures of a process are read', async (t) => {
  const stat = '42 (a (b) c) S 1 42 42 0 -1 4194560 900 0 3 0 250 75 9 9 20 0 1 0 100 5000 60'
  const status = 'Name:\ta\nVmPeak:\t   99999 kB\nVmHWM:\t    1024 kB\nVmRSS:\t     512 kB\n'
  const io = 'rchar: 1\nwchar: 2\nread_bytes: 3\nwrite_bytes: 4096\ncancelled_write_bytes: 5\n'
  t.same(parseUsage(stat, status, io), { cpu: 3.25, peak: 2 ** 20, written: 4096 })
})

t.test('usage of our own process is measured', async (t) => {
  await resetPeak(process.pid)
  const { cpu, peak, written } = await usageOf(process.pid)
  t.ok(cpu > 0 && cpu < 60)
  t.ok(peak > 2 ** 20)
  t.ok(written >= 0)
})
