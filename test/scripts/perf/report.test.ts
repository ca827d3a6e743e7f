import t from 'tap'
import { barPlot } from '../../../scripts/perf/plot.ts'
import { renderReport } from '../../../scripts/perf/report.ts'
import { RESULTS } from './canned.ts'

t.test('the report is one page with every figure', async (t) => {
  const page = renderReport(RESULTS)
  t.notMatch(page, /<script|<link|@import|url\(|src=|https?:/, 'needs nothing else')
  t.match(page, /prefers-color-scheme: dark/)
  t.match(page, /2 of 4 limits met in 1 cases/)
  t.match(page, /Some CPU, 2 cores, 24 GiB memory/)
  t.match(page, /node main\.js full a &#38; b/, 'text is escaped')
  t.match(page, /8 GiB &#60;mixed&#62;/)
  t.match(page, /restore failed and has no figures: .*Content mismatch/)
  t.equal(page.match(/<svg /g)?.length, 4)
  t.equal(page.match(/class="bad">✗ miss/g)?.length, 2)
  t.notMatch(page, /NaN|undefined|Infinity/)
  t.match(renderReport({ ...RESULTS, quick: true }), /<b>Quick run<\/b>/)
})

t.test('a plot has a point for each value', async (t) => {
  const { text: svg } = barPlot(
    [
      { label: 'ours', kind: 'ours', values: [4, 6, 3] },
      { label: 'peer', kind: 'peer', values: [5, 6, 5] },
      { label: 'limit', kind: 'limit', values: [3.5] },
    ],
    'seconds',
    4.5,
  )
  t.equal(svg.match(/<circle /g)?.length, 7, 'a dot for each run')
  t.equal(svg.match(/<line class="pair"/g)?.length, 3, 'a line for each pair')
  t.equal(svg.match(/<line class="most"/g)?.length, 1)
  t.match(svg, /aria-label="seconds: ours 4, peer 5, limit 3\.5"/)
  const rights = [...svg.matchAll(/cx="([\d.]+)"/g)].map((match) => Number(match[1]))
  t.ok(Math.max(...rights) <= 640 - 84, 'all within the axis')
})

t.test('a plot of zeroes is drawn', async (t) => {
  const { text } = barPlot([{ label: 'ours', kind: 'ours', values: [0] }], 'seconds')
  t.notMatch(text, /NaN|Infinity/)
})
