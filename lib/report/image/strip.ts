import { type Chart, chart, gridLines, type Mark, round, type Tip } from '../../page/chart.ts'
import { type Html, html, markup } from '../../page/html.ts'
import { sizeTicks } from '../../page/ticks.ts'
import { formatSize } from '../../units.ts'

/** What a strip has in each piece of the disk: a class of CSS, its name in words, and bytes. */
export type Band = readonly [kind: string, name: string, bytes: readonly number[]]

/** How a disk is laid out on a page. */
export interface DiskScale {
  virtualSize: number
  pieceSize: number
  marks: readonly Mark[]
}

/** The least height of what is there at all, pixels. */
const LEAST = 3

export function diskScale(virtualSize: number, pieceSize: number): DiskScale {
  const marks = sizeTicks(virtualSize)
    .map(({ value, label }) => ({ at: value / virtualSize, label }))
    .filter(({ at }) => at <= 1)
  return { virtualSize, pieceSize, marks }
}

/** The disk from left to right; in each place bands as high as their share of the bytes there. */
export function strip(
  label: string,
  bands: readonly Band[],
  { virtualSize, pieceSize, marks }: DiskScale,
  height: number,
): Html {
  const width = Math.max(1, virtualSize / pieceSize)
  const columns = columnsOf(bands, pieceSize, virtualSize, height)
  const paths = bands.map(([kind], band) => {
    const d = pathOf(
      columns.map((tops) => [band === 0 ? 0 : tops[band - 1], tops[band]]),
      width,
      height,
    )
    return markup(d === '' ? '' : `<path class="${kind}" d="${d}"/>`)
  })
  const drawn: Chart = {
    label,
    width,
    height,
    shapes: [html`<rect class="none" width="${round(width)}" height="${height}"/>`, ...paths],
    texts: gridLines(
      marks.filter(({ at }) => at > 0 && at < 1),
      height,
    ),
    tips: tipsOf(bands, columns, virtualSize, pieceSize),
  }
  return chart(drawn)
}

/** For each piece the tops of the bands, pixels from below. */
function columnsOf(
  bands: readonly Band[],
  pieceSize: number,
  virtualSize: number,
  height: number,
): number[][] {
  const count = Math.ceil(virtualSize / pieceSize)
  return Array.from({ length: count }, (_, i) => {
    const size = Math.min(pieceSize, virtualSize - i * pieceSize)
    const heights = bands.map(([, , bytes]) => {
      return bytes[i] > 0 ? Math.max(LEAST, Math.round((bytes[i] / size) * height)) : 0
    })
    const excess = heights.reduce((sum, one) => sum + one, 0) - height
    if (excess > 0) heights[heights.indexOf(Math.max(...heights))] -= excess
    let top = 0
    return heights.map((one) => (top += one))
  })
}

/** Rectangles from equal neighbours. */
function pathOf(
  columns: readonly (readonly [number, number])[],
  width: number,
  height: number,
): string {
  let path = ''
  for (let i = 0; i < columns.length; ) {
    const [bottom, top] = columns[i]
    let next = i + 1
    while (next < columns.length && columns[next][0] === bottom && columns[next][1] === top) next++
    if (top > bottom) {
      path += `M${i} ${height - top}H${round(Math.min(next, width))}V${height - bottom}H${i}z`
    }
    i = next
  }
  return path
}

/** Neighbours that look alike are told together. */
function tipsOf(
  bands: readonly Band[],
  columns: readonly (readonly number[])[],
  virtualSize: number,
  pieceSize: number,
): Tip[] {
  const tips: Tip[] = []
  for (let i = 0; i < columns.length; ) {
    let next = i + 1
    while (next < columns.length && columns[next].every((top, band) => top === columns[i][band]))
      next++
    const [start, end] = [i * pieceSize, Math.min(next * pieceSize, virtualSize)]
    const parts = bands.flatMap(([, name, bytes]) => {
      const sum = bytes.slice(i, next).reduce((total, one) => total + one, 0)
      return sum > 0 ? [`${name} ${formatSize(sum)}`] : []
    })
    const what = parts.length > 0 ? parts.join(', ') : 'nothing'
    tips.push({
      at: start / virtualSize,
      text: `${formatSize(start)} to ${formatSize(end)}: ${what}`,
    })
    i = next
  }
  return tips
}
