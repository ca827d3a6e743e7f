import { type Html, html } from '../../lib/page/html.ts'
import { ticks } from '../../lib/page/ticks.ts'
import { median } from './stats.ts'

/** One row of a plot. */
export interface Row {
  label: string
  /** CSS class that gives the colour: `ours`, `peer` or `limit`. */
  kind: string
  /** A dot each; the bar ends at their median. */
  values: number[]
}

const WIDTH = 640
const LEFT = 56
const RIGHT = 84
const TOP = 8
const ROW = 34
const AXIS = 40

/**
 * Bars to the median with a dot for each run. Where the first two rows have equally many runs,
 * lines join the runs of a pair: near upright lines mean that the machine, not the program, varied.
 * @param unit unit of the axis
 * @param most a threshold to draw, in the unit of the values
 * @returns an inline SVG element, coloured by the page's style sheet
 */
export function barPlot(rows: Row[], unit: string, most?: number): Html {
  const ends = ticks(Math.max(...rows.flatMap((row) => row.values), most ?? 0))
  const x = (value: number) => LEFT + (value / ends.at(-1)!) * (WIDTH - LEFT - RIGHT)
  const y = (row: number) => TOP + row * ROW + ROW / 2
  const bottom = TOP + rows.length * ROW
  const grid = ends.map(
    (tick) =>
      html`<line class="grid" x1="${px(x(tick))}" y1="${TOP}" x2="${px(x(tick))}" y2="${bottom}"/><text class="tick" x="${px(x(tick))}" y="${bottom + 15}">${tick}</text>`,
  )
  const bars = rows.map((row, i) => drawRow(row, x, y(i)))
  const threshold =
    most !== undefined &&
    html`<line class="most" x1="${px(x(most))}" y1="${TOP}" x2="${px(x(most))}" y2="${bottom}"/>`
  const middle = (LEFT + WIDTH - RIGHT) / 2
  const words = rows.map((row) => `${row.label} ${figure(median(row.values))}`).join(', ')
  return html`<svg viewBox="0 0 ${WIDTH} ${bottom + AXIS}" role="img" aria-label="${`${unit}: ${words}`}">
${grid}
${bars}
${pairLines(rows, x, y)}${threshold}
<text class="tick" x="${middle}" y="${bottom + 33}">${unit}</text>
</svg>`
}

function drawRow({ label, kind, values }: Row, x: (value: number) => number, y: number): Html {
  const end = x(median(values))
  const dots = values.map((v) => html`<circle class="${kind}" cx="${px(x(v))}" cy="${y}" r="3.5"/>`)
  // Behind the last dot, so that no dot is drawn over the figure.
  const after = Math.max(end, ...values.map(x)) + 10
  return html`<text class="label" x="${LEFT - 8}" y="${y + 4}">${label}</text>
<rect class="${kind}" x="${LEFT}" y="${y - 10}" width="${px(end - LEFT)}" height="20"/>${dots}
<text class="value" x="${px(after)}" y="${y + 4}">${figure(median(values))}</text>
`
}

function pairLines(
  [a, b]: Row[],
  x: (value: number) => number,
  y: (row: number) => number,
): Html[] {
  if (a.values.length !== b?.values.length || a.values.length < 2) return []
  return a.values.map((value, i) => {
    const [x1, x2] = [px(x(value)), px(x(b.values[i]))]
    return html`<line class="pair" x1="${x1}" y1="${y(0)}" x2="${x2}" y2="${y(1)}"/>`
  })
}

/** Three significant digits, but no digit of a whole number lost. */
function figure(value: number): string {
  return value >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(3)))
}

function px(value: number): number {
  return Math.round(value * 10) / 10
}
