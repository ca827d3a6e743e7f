/** Parts that the pages of reports have in common. */
import { type Html, html } from '../page/html.ts'
import { formatAge } from '../units.ts'
import type { Finding } from './finding.ts'

/** A number that stands out, with what it is, and more words about it. */
export type Figure = [what: string, value: string, more?: string]

export function figures(all: readonly Figure[]): Html {
  const cells = all.map(
    ([what, value, more]) =>
      html`<div><dt>${what}</dt><dd>${value}${more !== undefined && html` <small>${more}</small>`}</dd></div>`,
  )
  return html`<dl class="figures">${cells}</dl>`
}

const MARKS: Record<Finding['level'], [sign: string, word: string]> = {
  good: ['✓', 'Good'],
  note: ['·', 'Note'],
  warning: ['!', 'Warning'],
  fault: ['✗', 'Fault'],
}

/** @param most of them on the page */
export function findingList(findings: readonly Finding[], most: number): Html {
  const items = findings.slice(0, most).map(({ level, text }) => {
    const [sign, word] = MARKS[level]
    return html`<li class="${level}"><b role="img" aria-label="${word}">${sign}</b><span>${text}</span></li>
`
  })
  return html`<ul class="findings">
${items}</ul>${more(findings.length - most)}`
}

/** Says how many were left out, if any. */
export function more(count: number): Html | false {
  return count > 0 && html`<p class="soft">… and ${count} more.</p>`
}

/** A legend: classes of CSS, and what their colours mean. */
export function legend(kinds: readonly (readonly [kind: string, meaning: string])[]): Html {
  const items = kinds.map(
    ([kind, meaning]) =>
      html`<li><svg aria-hidden="true" viewBox="0 0 8 8"><rect class="${kind}" width="8" height="8"/></svg>${meaning}</li>`,
  )
  return html`<ul class="legend">${items}</ul>`
}

/** `2026-11-29 11:52 UTC`. */
export function timeText(time: string): string {
  return `${new Date(time).toISOString().slice(0, 16).replace('T', ' ')} UTC`
}

/** How long ago something was, milliseconds. */
export function agoText(milliseconds: number): string {
  const age = formatAge(milliseconds)
  return milliseconds < 0 ? age : `${age} ago`
}
