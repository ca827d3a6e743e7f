import { axis } from '../../page/chart.ts'
import { type Html, html } from '../../page/html.ts'
import { renderPage } from '../../page/page.ts'
import { FILTER, TIPS } from '../../page/script.ts'
import { formatAge, formatSize } from '../../units.ts'
import { agoText, type Figure, figures, findingList, legend, timeText } from '../parts.ts'
import { STYLE as REPORT } from '../style.ts'
import { area, type Step } from './area.ts'
import { machineBody } from './machine-body.ts'
import { retentionSection } from './retention-section.ts'
import { STYLE } from './style.ts'
import { type TimeScale, timeline, timeScale } from './timeline.ts'
import type { ReportedMachine, RepositoryReport } from './types.ts'

/** Findings on the page. */
const MAX_FINDINGS = 100
/** Machines up to which all are shown open, and from which there is something to choose from. */
const FEW = 3
const MANY = 8
/** Points in the tables of all machines together, and of each in any case. */
const MAX_ROWS = 5000
const MIN_ROWS = 20

/** The report of a repository as a page. */
export function renderRepositoryReport(report: RepositoryReport): string {
  const { repository, time, machines } = report
  const scale = timeScale(timesOf(machines), time)
  const rows = Math.max(MIN_ROWS, Math.floor(MAX_ROWS / Math.max(1, machines.length)))
  const open = machines.length <= FEW
  const body = html`<header><h1>Backups in ${repository}</h1>
<p class="soft">as they were at ${timeText(time)}</p></header>
${figures(figuresOf(report))}
${findingList(report.findings, MAX_FINDINGS)}
${growth(machines, scale)}
<h2>Machines</h2>
${legend(marksOf(machines))}
${machines.length > MANY && html`<input class="filter" type="search" placeholder="Filter machines" aria-label="Filter machines" hidden>`}
<div class="machines">
<div class="row"><span></span><span>Machine</span><span>${axis(scale.marks)}</span><span>Stored</span><span>Last backup</span></div>
${machines.map((machine) => machineRow(machine, report, scale, { open, rows }))}</div>
${retentionSection(report)}`
  const title = `Backups in ${repository}`
  return renderPage({ title, style: REPORT + STYLE, script: TIPS + FILTER, body })
}

function* timesOf(machines: readonly ReportedMachine[]): Generator<string> {
  for (const { points } of machines) for (const { time } of points) yield time
}

function figuresOf({ machines, storedBytes, time }: RepositoryReport): Figure[] {
  const points = machines.reduce((sum, one) => sum + one.points.length, 0)
  const verified = machines.reduce(
    (sum, one) => sum + one.points.filter((point) => point.verified?.same).length,
    0,
  )
  const longest = Math.max(0, ...machines.map((one) => one.points.at(-1)?.depth ?? 0))
  const times = [...timesOf(machines)].map((one) => Date.parse(one))
  const newest = times.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY)
  const oldest = times.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY)
  const now = Date.parse(time)
  return [
    ['Machines', `${machines.length}`],
    ['Points', `${points}`, points > 0 ? `over ${formatAge(now - oldest)}` : undefined],
    ['Stored', formatSize(storedBytes)],
    ['Newest', points > 0 ? agoText(now - newest) : 'none'],
    ['Longest chain', `${longest}`, 'images for the last point'],
    ['Verified', `${verified} of ${points}`, 'points'],
  ]
}

/** What all machines together took, over time. */
function growth(machines: readonly ReportedMachine[], scale: TimeScale): Html | false {
  const added = machines
    .flatMap(({ points }) => points)
    .map(({ time, storedBytes }) => {
      return { time, storedBytes, at: Date.parse(time) }
    })
  if (added.length < 2) return false
  added.sort((a, b) => a.at - b.at)
  let value = 0
  const steps = added.map(({ time, storedBytes }): Step => {
    value += storedBytes
    return { time, value }
  })
  return html`<h2>Growth</h2>
<figure><figcaption>Storage of the points that are there, by when they were made</figcaption>
${area('Stored', steps, scale, 'size')}${axis(scale.marks)}</figure>`
}

const MARK_WORDS = {
  whole: 'full backup',
  point: 'incremental',
  goes: 'goes with the next prune',
  different: 'not as recorded',
} as const

function marksOf(machines: readonly ReportedMachine[]): [string, string][] {
  const points = machines.flatMap((machine) => machine.points)
  const goes = points.some(({ retention }) => retention?.keep === false)
  const different = points.some(({ verified }) => verified?.same === false)
  return Object.entries(MARK_WORDS).filter(
    ([mark]) => (mark !== 'goes' || goes) && (mark !== 'different' || different),
  )
}

const STATES = {
  fault: ['✗', 'has faults'],
  warning: ['!', 'has warnings'],
  good: ['✓', 'as it should be'],
} as const

function machineRow(
  machine: ReportedMachine,
  { time, policy }: RepositoryReport,
  scale: TimeScale,
  { open, rows }: { open: boolean; rows: number },
): Html {
  const { machine: name, points, storedBytes, findings } = machine
  const level = findings.map((one) => one.level).find((one) => one === 'fault' || one === 'warning')
  const state = level === 'fault' || level === 'warning' ? level : 'good'
  const [sign, words] = STATES[state]
  const last = points.at(-1)
  const age = last && agoText(Date.parse(time) - Date.parse(last.time))
  const label = `${name}: ${points.length} points, ${words}`
  return html`<details class="machine"${open && html` open`}><summary><span class="state ${state}" role="img" aria-label="${words}">${sign}</span><b>${name}</b><span>${timeline(label, points, scale)}</span><span>${formatSize(storedBytes)}</span><span>${age ?? 'none'}</span></summary>
<div>${machineBody(machine, scale, { policy, rows })}</div></details>
`
}
