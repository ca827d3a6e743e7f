import t from 'tap'
import { COLUMNS, figures, renderTable } from '../../../scripts/perf/table.ts'
import { FAILED, MEASURED, RESULTS } from './canned.ts'

t.test('figures stand under their headings', async (t) => {
  const row = figures(MEASURED)
  t.equal(row.length, COLUMNS.length)
  t.equal(row[COLUMNS.indexOf('limit')], '3.60')
  t.equal(row[COLUMNS.indexOf('wall ratio (min–max)')], '0.80 (0.60–1.00)')
  t.equal(row[COLUMNS.indexOf('peak MB ours')], '100')
  t.equal(row[COLUMNS.indexOf('fragm. % ours') + 1], '3.94')
  t.equal(row[COLUMNS.indexOf('limits met')], '2/4')

  const { fragmentation, limit, ...summary } = MEASURED.summary
  const without = figures({ ...MEASURED, summary })
  t.equal(without[COLUMNS.indexOf('limit')], '–')
  t.equal(without[COLUMNS.indexOf('fragm. % ours')], '–')
})

t.test('the table for a terminal fits its columns', async (t) => {
  const lines = renderTable(RESULTS).split('\n')
  t.equal(lines[0].length, lines[1].length, 'columns are aligned')
  t.match(lines, [/^case /, /^full-raw /, /^$/])
  t.ok(lines.some((line) => /wall to peer +0\.80 ≤ 1\.00 +✓ pass$/.test(line)))
  t.ok(lines.some((line) => /peak memory +100 MB ≤ 90 MB +✗ miss$/.test(line)))
  t.ok(lines.some((line) => /^restore +FAILED .*Content mismatch/.test(line)))
  t.notMatch(lines.join('\n'), /quick:/)
  t.match(renderTable({ ...RESULTS, quick: true }), /quick: smaller disks/)
})

t.test('no table where every case failed', async (t) => {
  t.equal(renderTable({ ...RESULTS, cases: [FAILED] }), `restore  FAILED  ${FAILED.failure}\n`)
})
