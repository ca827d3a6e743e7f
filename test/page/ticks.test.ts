import t from 'tap'
import { ticks } from '../../lib/page/ticks.ts'

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
