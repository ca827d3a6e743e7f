import t from 'tap'
import { renderImageReport } from '../../lib/report/image/page.ts'
import { effort } from '../support/effort.ts'
import { requireSoundMarkup } from '../support/markup.ts'
import { HOSTILE_NAMES, hostileImageReport } from './canned.ts'

t.test('names on the page of an image stay text', async (t) => {
  const page = renderImageReport(hostileImageReport())
  requireSoundMarkup(t, page)
  for (const name of HOSTILE_NAMES.slice(0, 4)) t.notOk(page.includes(name))
  t.match(page, /na\\xff\\xc3\(/, 'bytes that are no text are shown')
})

t.test('a long chain, and 65,000 bitmaps and snapshots, make a page of some size', async (t) => {
  const report = hostileImageReport(effort(40, 250))
  const many = <T>(items: T[]) => Array.from({ length: 65_000 }, (_, i) => items[i % items.length])
  report.bitmaps = many(report.bitmaps)
  report.snapshots = many(report.snapshots)
  report.findings = many(report.findings)
  const page = renderImageReport(report)
  t.ok(page.length < 12e6, `${page.length} characters`)
  t.match(page, /and 64900 more/)
})
