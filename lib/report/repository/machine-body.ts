import { axis } from '../../page/chart.ts'
import { type Html, html } from '../../page/html.ts'
import { type Column, table } from '../../page/table.ts'
import type { RetentionPolicy } from '../../repository/retention.ts'
import { formatAge, formatSize } from '../../units.ts'
import { findingList, more, timeText } from '../parts.ts'
import { area, type Step } from './area.ts'
import type { TimeScale } from './timeline.ts'
import type { ReportedMachine, ReportedPoint } from './types.ts'

const MAX_FINDINGS = 50
/** Points that are seen at once. */
const NEWEST = 10

/** What is shown of a machine when it is opened. */
export function machineBody(
  machine: ReportedMachine,
  scale: TimeScale,
  { policy, rows }: { policy?: RetentionPolicy; rows: number },
): Html {
  const { points, findings } = machine
  let value = 0
  const stored = points.map(({ time, storedBytes }): Step => {
    value += storedBytes
    return { time, value }
  })
  const chain = points.map(({ time, depth }): Step => ({ time, value: depth ?? 0 }))
  const charts: [string, Html][] = [
    ['Stored', area('Stored', stored, scale, 'size')],
    ['Images that a restore reads', area('Images', chain, scale, 'count')],
  ]
  return html`${findings.length > 0 && findingList(findings, MAX_FINDINGS)}
<p class="soft">${factsOf(machine)}</p>
${
  points.length > 1 &&
  html`<div class="charts">${charts.map(
    ([title, drawn]) =>
      html`<figure><figcaption>${title}</figcaption>${drawn}${axis(scale.marks)}</figure>`,
  )}</div>`
}
${pointTables(points, policy !== undefined, rows)}`
}

function factsOf({ points, usualInterval }: ReportedMachine): string {
  const last = points.at(-1)
  const disks = last?.disks.map(({ name, virtualSize }) => `${name} ${formatSize(virtualSize)}`)
  const parts = [
    ...(disks && disks.length > 0 ? [`Disks: ${disks.join(', ')}`] : []),
    ...(usualInterval === undefined ? [] : [`a backup every ${formatAge(usualInterval)}`]),
    ...(last?.depth === undefined ? [] : [`the last point is read from ${images(last.depth)}`]),
  ]
  return parts.join(' · ')
}

function images(count: number): string {
  return count === 1 ? '1 image' : `${count} images`
}

/** The newest first; those that are not seen at once are printed only where they were opened. */
function pointTables(points: readonly ReportedPoint[], retention: boolean, rows: number): Html {
  const columns: Column[] = [
    { label: 'Time, UTC', text: 'line' },
    { label: 'Point', text: 'line', extra: true },
    { label: 'Kind', text: 'line' },
    { label: 'Stored' },
    { label: 'Images', extra: true },
    { label: 'Verified', text: 'line', extra: true },
    ...(retention ? [{ label: 'Next prune', text: 'words' } as const] : []),
  ]
  const cells = points
    .slice(-rows)
    .reverse()
    .map((point) => [
      timeText(point.time).replace(' UTC', ''),
      point.point,
      kindWords(point),
      formatSize(point.storedBytes),
      point.depth ?? 'broken',
      verifiedWords(point),
      ...(retention ? [retentionWords(point)] : []),
    ])
  const tableOf = (some: typeof cells) => table(columns, some, { cards: false })
  const older = cells.slice(NEWEST)
  return html`${tableOf(cells.slice(0, NEWEST))}
${
  older.length > 0 &&
  html`<details><summary class="more">${points.length - NEWEST} older points</summary>${tableOf(older)}${more(points.length - rows)}</details>`
}`
}

function kindWords({ kind, disks }: ReportedPoint): string {
  if (kind !== 'mixed') return kind
  return disks.map((disk) => `${disk.name} ${disk.kind}`).join(', ')
}

function verifiedWords({ verified }: ReportedPoint): Html | string {
  if (!verified) return 'never'
  const time = verified.time.slice(0, 10)
  return verified.same ? time : html`<span class="bad">${time}: not as recorded</span>`
}

function retentionWords({ retention }: ReportedPoint): Html | string {
  if (!retention) return ''
  if (retention.keep) return `keep: ${retention.reasons.join(', ')}`
  return html`<span class="soft">remove</span>`
}
