import t from 'tap'
import { median, pairwiseRatios, spread } from '../../../scripts/perf/stats.ts'

t.test('the median is the middle of the sorted numbers', async (t) => {
  t.equal(median([7]), 7)
  t.equal(median([10, 9, 1]), 9, 'sorted as numbers, not as text')
  t.equal(median([4, 1, 3, 2]), 2.5)
  t.throws(() => median([]), RangeError)
  const values = [3, 1, 2]
  median(values)
  t.same(values, [3, 1, 2], 'leaves its argument as it was')
})

t.test('the spread of values is their median, least and largest', async (t) => {
  t.same(spread([3, 1, 2]), { median: 2, min: 1, max: 3 })
  t.throws(() => spread([]), RangeError)
})

t.test('the ratio is taken of each pair', async (t) => {
  t.same(pairwiseRatios([1, 10, 3], [2, 20, 2]), [0.5, 0.5, 1.5])
  t.throws(() => pairwiseRatios([1], [1, 2]), RangeError)
})
