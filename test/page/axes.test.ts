import t from 'tap'
import { sizeTicks, ticks } from '../../lib/page/ticks.ts'
import { timeMarks } from '../../lib/page/time-axis.ts'

t.test('ticks are round and reach the end', async (t) => {
  t.same(ticks(6), [0, 1, 2, 3, 4, 5, 6])
  t.same(ticks(0.65), [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
  t.same(ticks(414), [0, 100, 200, 300, 400, 500])
  t.same(ticks(0), [0, 1])
  for (let most = 0.001; most < 1e5; most *= 1.37) {
    const all = ticks(most)
    t.ok(all.at(-1)! >= most * (1 - 1e-9) && all.length >= 4 && all.length <= 9, `to ${most}`)
  }
})

const labels = (from: string, to: string) =>
  timeMarks(Date.parse(from), Date.parse(to)).map(({ label }) => label)

t.test('sizes of an axis have one unit', async (t) => {
  const labels = (largest: number) => sizeTicks(largest, 4).map(({ label }) => label)
  t.strictSame(labels(931 * 2 ** 20), ['0 MiB', '500 MiB', '1000 MiB'])
  t.strictSame(labels(2 ** 40), ['0 TiB', '0.5 TiB', '1 TiB'])
  t.strictSame(sizeTicks(2000).at(-1), { value: 2048, label: '2 KiB' })
  t.strictSame(labels(0), ['0 B', '1 B'])
})

t.test('marks of time are what people count in', async (t) => {
  t.strictSame(
    labels('2026-03-01T09:30Z', '2026-03-01T14:30Z'),
    '10 11 12 13 14'.split(' ').map((h) => `${h}:00`),
  )
  t.strictSame(labels('2026-02-27T20:00Z', '2026-03-01T01:00Z'), [
    '28 Feb',
    '06:00',
    '12:00',
    '18:00',
    '1 Mar',
  ])
  // Weeks begin on Monday.
  t.strictSame(labels('2026-11-01T00:00Z', '2026-11-30T12:00Z'), [
    '2 Nov',
    '9 Nov',
    '16 Nov',
    '23 Nov',
    '30 Nov',
  ])
  t.strictSame(labels('2025-11-30T00:00Z', '2026-04-02T00:00Z'), [
    'Dec 2025',
    'Jan 2026',
    'Feb 2026',
    'Mar 2026',
    'Apr 2026',
  ])
  t.strictSame(labels('2021-05-01T00:00Z', '2026-11-30T00:00Z'), [
    '2022',
    '2023',
    '2024',
    '2025',
    '2026',
  ])
})

t.test('any span has a few marks, in order and within it', async (t) => {
  const from = Date.parse('1999-12-31T23:59:59Z')
  for (let span = 1; span < 3e13; span *= 1.7) {
    const marks = timeMarks(from, from + span)
    const at = marks.map((mark) => mark.at)
    t.ok(
      marks.length <= 14 &&
        at.every((one, i) => one >= 0 && one <= 1 && (i === 0 || one > at[i - 1])),
      `${span}: ${at}`,
    )
  }
  t.strictSame(timeMarks(5, 5), [])
})
