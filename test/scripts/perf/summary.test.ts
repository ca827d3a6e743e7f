import t from 'tap'
import {
  cpuSeconds,
  judge,
  type Limit,
  limitRatio,
  wallBeyondPeer,
} from '../../../scripts/perf/limits.ts'
import { summarize } from '../../../scripts/perf/summary.ts'
import { fragmentedPercent } from '../../../scripts/perf/verify.ts'
import { MEASURED, PAIRS, SUMMARY } from './canned.ts'

t.test('a summary has medians of the runs, ratios of the pairs', async (t) => {
  t.same(SUMMARY.wall, {
    ours: { median: 4, min: 3, max: 6 },
    peer: { median: 5, min: 5, max: 6 },
    ratio: { median: 0.8, min: 0.6, max: 1 },
  })
  t.same(SUMMARY.fileSize, { ours: 3_004_000_000, peer: 3e9 }, 'the longest of each')
  t.same(SUMMARY.limit, { median: 3.6, min: 3.5, max: 3.7 })
  t.equal(summarize(PAIRS, []).limit, undefined)
  t.throws(() => summarize([], []), RangeError)
})

t.test('limits are checked against the summary', async (t) => {
  const met = MEASURED.verdicts.map(({ what, met }) => [what, met])
  t.same(met, [
    ['wall to peer', true],
    ['peak memory', false],
    ['fragmentation', true],
    ['file larger than peer', false],
  ])
  const limit = (most: number, value: number): Limit => ({
    what: 'x',
    most,
    unit: 's',
    of: () => value,
  })
  t.same(
    judge([limitRatio(1.15), wallBeyondPeer(0.05), cpuSeconds(1)], SUMMARY).map((v) => v.value),
    [4 / 3.6, -1, 2],
  )
  const unlimited = judge([limitRatio(1)], summarize(PAIRS, []))
  t.equal(unlimited[0].met, false, 'nothing to compare with is no pass')
  t.equal(judge([limit(1, 1)], SUMMARY)[0].met, true, 'up to and with')
  t.equal(judge([limit(1, Number.NaN)], SUMMARY)[0].met, false, 'no figure is no pass')
})

t.test('fragmentation as qemu-img check prints it', async (t) => {
  t.equal(fragmentedPercent({ 'fragmented-clusters': 1, 'allocated-clusters': 8 }), 12.5)
  t.equal(fragmentedPercent({ 'allocated-clusters': 8 }), 0)
  t.equal(fragmentedPercent({}), 0)
})
