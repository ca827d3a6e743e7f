import { type Html, html } from './html.ts'

/** What a chart shows when it is pointed at, from some place on to the next one's. */
export interface Tip {
  /** Share of the width, 0 to 1. */
  at: number
  /** Numbers and words of ours; empty for nothing. */
  text: string
}

/** A chart. Its shapes are stretched to the width that there is, its texts are not. */
export interface Chart {
  /** What it shows, for those who cannot see it. */
  label: string
  /** Units of the shapes across. */
  width: number
  /** Pixels; units of the shapes down. */
  height: number
  shapes: Html | readonly Html[]
  /** Placed by percent across. */
  texts?: readonly Html[]
  tips?: readonly Tip[]
}

export function chart({ label, width, height, shapes, texts = [], tips = [] }: Chart): Html {
  const told = tips.map(({ at, text }) => `${round(at * 1000)} ${text}`).join('|')
  const data = told !== '' && html` data-tips="${told}"`
  return html`<svg class="chart" width="100%" height="${height}" role="img" aria-label="${label}"${data}><svg width="100%" height="${height}" viewBox="0 0 ${width} ${height}" preserveAspectRatio="none">${shapes}</svg>${texts}</svg>`
}

/** A mark of an axis. */
export interface Mark {
  /** Share of the width, 0 to 1. */
  at: number
  label: string
}

/** The labels of an axis across. Where there is no room for all, every second one goes. */
export function axis(marks: readonly Mark[]): Html {
  const texts = marks.map(({ at, label }, i) => {
    const side = at < 0.04 ? 'first' : at > 0.96 ? 'last' : 'middle'
    const odd = i % 2 === 1 && ' odd'
    return html`<text class="tick ${side}${odd}" x="${percent(at)}" y="13">${label}</text>`
  })
  return html`<svg class="chart axis" width="100%" height="18" aria-hidden="true">${texts}</svg>`
}

/** Lines through a chart at the marks of its axis. */
export function gridLines(marks: readonly Mark[], height: number): Html[] {
  return marks.map(
    ({ at }) =>
      html`<line class="grid" x1="${percent(at)}" y1="0" x2="${percent(at)}" y2="${height}"/>`,
  )
}

export function percent(share: number): string {
  return `${round(share * 100)}%`
}

/** A number of units as charts write it. */
export function round(value: number): number {
  return Math.round(value * 10) / 10
}
