import { chart, gridLines, round } from '../../page/chart.ts'
import { type Html, html, markup } from '../../page/html.ts'
import { sizeTicks, type Tick, ticks } from '../../page/ticks.ts'
import { formatSize } from '../../units.ts'
import { timeText } from '../parts.ts'
import { place, type TimeScale, WIDTH } from './timeline.ts'

/** A value from some time on. */
export interface Step {
  time: string
  value: number
}

const HEIGHT = 132
/** Room for the topmost label. */
const TOP = 16
/** Lines across, at most. */
const LINES = 4

/**
 * An area under values that hold until the next one. Of those in one place the highest is drawn.
 * @param unit `size`: bytes; `count`: plain numbers
 */
export function area(
  what: string,
  steps: readonly Step[],
  scale: TimeScale,
  unit: 'size' | 'count',
): Html {
  const words = unit === 'size' ? formatSize : String
  const columns = new Map<number, { highest: number; last: Step }>()
  for (const step of steps) {
    const x = Math.round(place(step.time, scale))
    const highest = Math.max(step.value, columns.get(x)?.highest ?? 0)
    columns.set(x, { highest, last: step })
  }
  const drawn = [...columns].sort(([a], [b]) => a - b)
  const largest = Math.max(0, ...drawn.map(([, { highest }]) => highest))
  const lines = (unit === 'size' ? sizeTicks : countTicks)(largest, LINES).slice(1)
  const most = lines[lines.length - 1].value || 1
  const y = (value: number) => round(HEIGHT - (value / most) * (HEIGHT - TOP))
  let line = ''
  for (const [x, { highest, last }] of drawn) {
    line += `${line === '' ? `M${x} ${HEIGHT}` : `H${x}`}V${y(highest)}`
    if (last.value !== highest) line += `V${y(last.value)}`
  }
  if (line !== '') line += `H${WIDTH}`
  const across = lines.map(
    ({ value, label }) =>
      html`<line class="grid" x1="0" y1="${y(value)}" x2="100%" y2="${y(value)}"/><text class="tick" x="0" y="${y(value) - 4}">${label}</text>`,
  )
  const last = steps.at(-1)
  return chart({
    label: last ? `${what}, now ${words(last.value)}` : what,
    width: WIDTH,
    height: HEIGHT,
    shapes: markup(
      line === ''
        ? ''
        : `<path class="under" d="${line}V${HEIGHT}z"/><path class="line" d="${line}"/>`,
    ),
    texts: [...gridLines(scale.marks, HEIGHT), ...across],
    tips: drawn.map(([x, { last }]) => {
      return { at: x / WIDTH, text: `${timeText(last.time)}: ${words(last.value)}` }
    }),
  })
}

function countTicks(largest: number, steps: number): Tick[] {
  return ticks(largest, steps).map((value) => ({ value, label: `${value}` }))
}
