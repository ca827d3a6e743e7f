import { type Html, html, type Part } from './html.ts'

/** A column of a table. */
export interface Column {
  label: string
  /** To the left, on one line or, `words`, on several. Default: numbers, to the right. */
  text?: 'line' | 'words'
  /** Left out where there is little room. */
  extra?: boolean
}

/** A table, in which where there is little room each row becomes a card, or `extra` columns are left out. */
export function table(
  columns: readonly Column[],
  rows: readonly (readonly Part[])[],
  { cards = true }: { cards?: boolean } = {},
): Html {
  const classes = columns.map(({ text, extra }) => {
    const words = [...(text ? [text] : []), ...(extra ? ['extra'] : [])]
    return words.length > 0 && html` class="${words.join(' ')}"`
  })
  const head = columns.map(({ label }, i) => html`<th scope="col"${classes[i]}>${label}</th>`)
  const cell = (part: Part, i: number) =>
    html`<td${classes[i]}${cards && html` data-label="${columns[i].label}"`}>${part}</td>`
  const body = rows.map(
    (row) => html`<tr>${row.map(cell)}</tr>
`,
  )
  return html`<div class="scroll"><table${cards && html` class="cards"`}><thead><tr>${head}</tr></thead><tbody>
${body}</tbody></table></div>`
}
