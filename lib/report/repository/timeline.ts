import { chart, gridLines, type Mark, round, type Tip } from '../../page/chart.ts'
import { type Html, markup } from '../../page/html.ts'
import { timeMarks } from '../../page/time-axis.ts'
import { formatSize } from '../../units.ts'
import { timeText } from '../parts.ts'
import type { ReportedPoint } from './types.ts'

/** From when to when a page goes, milliseconds since 1970. */
export interface TimeScale {
  from: number
  to: number
  marks: readonly Mark[]
}

/** Units across: each has one mark of a kind, however many points lie in it. */
export const WIDTH = 1000
const HEIGHT = 26

/** A scale on which all points have room, and the time of the report. */
export function timeScale(times: Iterable<string>, now: string): TimeScale {
  let from = Date.parse(now)
  let to = from
  for (const time of times) {
    const at = Date.parse(time)
    from = Math.min(from, at)
    to = Math.max(to, at)
  }
  return { from, to, marks: timeMarks(from, to) }
}

/** Where a time is, 0 to WIDTH. */
export function place(time: string, { from, to }: TimeScale): number {
  return to > from ? round(((Date.parse(time) - from) / (to - from)) * WIDTH) : WIDTH
}

/** How a point is drawn. */
function markOf({ kind, verified, retention }: ReportedPoint): string {
  if (verified && !verified.same) return 'different'
  if (retention && !retention.keep) return 'goes'
  return kind === 'incremental' ? 'point' : 'whole'
}

/** Top and bottom of each mark, pixels. */
const MARKS = { point: [9, 17], goes: [9, 17], whole: [4, 22], different: [2, 24] } as const

/** The points of a machine as marks in time. */
export function timeline(label: string, points: readonly ReportedPoint[], scale: TimeScale): Html {
  const columns = new Map<string, Set<number>>()
  for (const point of points) {
    const mark = markOf(point)
    const column = columns.get(mark) ?? new Set()
    columns.set(mark, column.add(Math.round(place(point.time, scale))))
  }
  const paths = Object.entries(MARKS).map(([mark, [top, bottom]]) => {
    const at = [...(columns.get(mark) ?? [])]
    const d = at.map((x) => `M${x} ${top}V${bottom}`).join('')
    return markup(d === '' ? '' : `<path class="mark ${mark}" d="${d}"/>`)
  })
  return chart({
    label,
    width: WIDTH,
    height: HEIGHT,
    shapes: [markup(`<path class="grid" d="M0 13H${WIDTH}"/>`), ...paths],
    texts: gridLines(scale.marks, HEIGHT),
    tips: tipsOf(points, scale, (some) => wordsOf(some)),
  })
}

/** Tells of the points that are nearest to a place: those of one unit together. */
export function tipsOf(
  points: readonly ReportedPoint[],
  scale: TimeScale,
  words: (points: readonly ReportedPoint[]) => string,
): Tip[] {
  const columns = new Map<number, ReportedPoint[]>()
  for (const point of points) {
    const x = Math.round(place(point.time, scale))
    const column = columns.get(x)
    if (column) column.push(point)
    else columns.set(x, [point])
  }
  const all = [...columns].sort(([a], [b]) => a - b)
  return all.map(([x, some], i) => {
    const from = i === 0 ? 0 : (all[i - 1][0] + x) / 2
    return { at: from / WIDTH, text: words(some) }
  })
}

function wordsOf(points: readonly ReportedPoint[]): string {
  const [first] = points
  const last = points[points.length - 1]
  const stored = formatSize(points.reduce((sum, { storedBytes }) => sum + storedBytes, 0))
  if (points.length === 1) return `${timeText(first.time)}, ${first.kind}, ${stored}`
  return `${points.length} points, ${timeText(first.time)} to ${timeText(last.time)}, ${stored}`
}
