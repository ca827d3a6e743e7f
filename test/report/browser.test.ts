/** The pages in a real browser: they are drawn, need nothing, and do not complain. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { reportImage, reportRepository } from '../../lib/index.ts'
import { renderImageReport } from '../../lib/report/image/page.ts'
import { makeMapped } from '../../scripts/perf/mapped-image.ts'
import { renderReport } from '../../scripts/perf/report.ts'
import { RESULTS } from '../scripts/perf/canned.ts'
import { BrowserPage } from '../support/browser.ts'
import { THOROUGH_ONLY } from '../support/effort.ts'
import { recordsOf, writeRecords } from '../support/recorded.ts'
import { HOSTILE_NAMES, hostileImageReport } from './canned.ts'

t.setTimeout(900_000)

/** For people to look at. */
const PICTURES = '.tap/pictures'

interface Case {
  make(directory: string): string | Promise<string>
  /** Elements that it may have at most. */
  most: number
  /** It has charts that tell what is where. */
  charts: boolean
}

/** A disk with a million extents of data, and as many holes. */
async function makeMillion(directory: string): Promise<string> {
  const image = join(directory, 'million.qcow2')
  const disk = { size: 2 ** 40, perTable: 512, run: 1 }
  await makeMapped(image, disk, new AbortController().signal)
  const { report, html } = await reportImage(image)
  t.equal(report.data + report.zero, 2 ** 20 * 65536)
  return html
}

/** Twelve machines, one with two thousand points, and one with a hostile name. */
async function makeRepository(directory: string): Promise<string> {
  const repository = join(directory, 'repo')
  const day = 86_400_000
  const add = (machine: string, points: number, interval: number, fullEvery = 0) => {
    const first = Date.now() - points * interval
    writeRecords(repository, recordsOf({ machine, points, interval, first, fullEvery }))
  }
  add('database', 2000, day / 6, 120)
  add(HOSTILE_NAMES[1], 5, day)
  for (let i = 0; i < 10; i++) add(`vm-${i}`, 20 + 10 * i, day, 30)
  const { html } = await reportRepository(repository, { keepDaily: 14, keepMonthly: 6 })
  return html
}

const CASES: Record<string, Case> = {
  perf: { make: () => renderReport(RESULTS), most: 1000, charts: false },
  image: { make: () => renderImageReport(hostileImageReport()), most: 3000, charts: true },
  chain: { make: () => renderImageReport(hostileImageReport(250)), most: 20_000, charts: true },
  repository: { make: makeRepository, most: 30_000, charts: true },
  million: { make: makeMillion, most: 1000, charts: true },
}

/** Colours of text and of what is behind it, and what the page is as wide as. */
const LOOKED_AT = `(() => {
  const paint = (name) => {
    const box = document.createElement('i')
    box.style.color = 'var(' + name + ')'
    document.body.append(box)
    const channels = getComputedStyle(box).color.match(/[0-9.]+/g).map(Number)
    box.remove()
    const linear = channels.slice(0, 3).map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
  }
  const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
  const paper = paint('--paper')
  const contrasts = ['--ink', '--soft', '--good', '--bad', '--warn', '--accent'].map((one) => contrast(paint(one), paper))
  const root = document.documentElement
  return { paper, least: Math.min(...contrasts), over: root.scrollWidth - root.clientWidth }
})()`

for (const [name, { make, most, charts }] of Object.entries(CASES)) {
  t.test(`the page is drawn in a browser: ${name}`, THOROUGH_ONLY, async (t) => {
    const directory = t.testdir()
    const file = join(directory, 'page.html')
    writeFileSync(file, await make(directory))
    mkdirSync(PICTURES, { recursive: true })
    const page = await BrowserPage.open(t)
    const looks = {
      light: { width: 1200 },
      dark: { width: 1200, scheme: 'dark' },
      phone: { width: 390, height: 844, mobile: true },
      printed: { width: 794, media: 'print', scheme: 'dark' },
    } as const
    await page.look(looks.light)
    await page.load(file)
    for (const [what, look] of Object.entries(looks)) {
      await page.look(look)
      const { paper, least, over } = await page.evaluate<Record<string, number>>(LOOKED_AT)
      t.equal(paper > 0.5, what !== 'dark', `${what}: the paper is as it should be`)
      t.ok(least >= 4.5, `${what}: text has a contrast of at least ${least}`)
      t.equal(over, 0, `${what}: nothing is wider than the screen`)
      await page.picture(join(PICTURES, `${name}-${what}.png`))
    }
    t.match((await page.print()).subarray(0, 5).toString(), /^%PDF-/)

    await page.look(looks.light)
    const elements = await page.evaluate<number>('document.querySelectorAll("*").length')
    t.ok(elements <= most, `${elements} elements`)
    const unnamed = 'document.querySelectorAll("svg[role=img]:not([aria-label])").length'
    t.equal(await page.evaluate(unnamed), 0, 'every picture has its words')
    t.notMatch(await page.evaluate('document.title'), /owned/)
    if (charts) {
      const place = await page.evaluate<{ x: number; y: number }>(`(() => {
        const chart = document.querySelector('[data-tips]')
        chart.scrollIntoView({ block: 'center' })
        const { x, y, width, height } = chart.getBoundingClientRect()
        return { x: x + width / 2, y: y + height / 2 }
      })()`)
      await page.pointTo(place.x, place.y)
      const told =
        '(({ hidden, textContent }) => hidden ? "" : textContent)(document.querySelector(".tip"))'
      t.match(await page.evaluate(told), /\d/, 'it tells what is there')
    }
    t.strictSame(page.complaints, [], 'nothing to complain of')
    t.equal(page.requests.length, 1, `asked for ${page.requests.join(', ')}`)
    t.match(page.requests[0], /^file:.*page\.html$/)

    // Its policy holds: what somebody got into it would neither run nor be fetched.
    await page.evaluate(`(() => {
      const script = document.createElement('script')
      script.textContent = 'document.title = "owned"'
      const image = document.createElement('img')
      image.src = 'http://127.0.0.1:9/x'
      document.body.append(script, image)
    })()`)
    t.notMatch(await page.evaluate('document.title'), /owned/)
    const refused = page.complaints.filter((one) => /violates.*Content Security Policy/.test(one))
    t.equal(refused.length, 2, 'the browser refused both')
  })
}

t.test('a hostile name is what the browser shows', THOROUGH_ONLY, async (t) => {
  const file = join(t.testdir(), 'page.html')
  writeFileSync(file, renderImageReport(hostileImageReport()))
  const page = await BrowserPage.open(t)
  await page.look({ width: 1200 })
  await page.load(file)
  const shown = await page.evaluate<string>('document.querySelector("header p").textContent')
  t.ok(shown.startsWith(`/srv/${HOSTILE_NAMES[0]} · `), shown)
})

t.test('machines are chosen by their names, and opened', THOROUGH_ONLY, async (t) => {
  const directory = t.testdir()
  const file = join(directory, 'page.html')
  writeFileSync(file, await makeRepository(directory))
  const page = await BrowserPage.open(t)
  await page.look({ width: 1200 })
  await page.load(file)
  const shown = `[...document.querySelectorAll('details.machine')].filter((one) => one.checkVisibility())
    .map((one) => one.querySelector('b').textContent).join()`
  t.equal((await page.evaluate<string>(shown)).split(',').length, 12)
  await page.evaluate(`(() => {
    const filter = document.querySelector('.filter')
    filter.value = 'DATA'
    filter.dispatchEvent(new Event('input'))
    document.querySelector('details.machine:not([hidden]) summary').click()
  })()`)
  t.equal(await page.evaluate(shown), 'database')
  t.ok(await page.evaluate('document.querySelector("details[open] table").checkVisibility()'))
  await page.picture(join(PICTURES, 'machine-light.png'))
  t.strictSame(page.complaints, [])
})
