import { oneLine } from '../text.ts'

/** Markup that can stand in a page as it is. Only `html` and `markup` make it. */
export class Html {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }
}

/** What can be put into markup: text is made safe, what is undefined or false is left out. */
export type Part = Html | string | number | undefined | false | readonly Part[]

/**
 * Markup with parts put in. Every text becomes one line of harmless characters, safe inside an element and
 * inside a quoted attribute: names are anyone's.
 */
export function html(strings: TemplateStringsArray, ...parts: readonly Part[]): Html {
  return new Html(strings.reduce((text, next, i) => text + markupOf(parts[i - 1]) + next))
}

/** Markup that this program has written itself. */
export function markup(text: string): Html {
  return new Html(text)
}

/** Lines of text for a `pre`, each made safe. */
export function textLines(text: string): Html {
  return new Html(text.split('\n').map(escaped).join('\n'))
}

function markupOf(part: Part): string {
  if (part instanceof Html) return part.text
  if (part === undefined || part === false) return ''
  if (typeof part === 'string') return escaped(part)
  return typeof part === 'number' ? String(part) : part.map(markupOf).join('')
}

function escaped(text: string): string {
  return oneLine(text).replace(/[&<>"'`]/g, (c) => `&#${c.charCodeAt(0)};`)
}
