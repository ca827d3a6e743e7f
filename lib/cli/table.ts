import { oneLine } from '../text.ts'

/** A column of a table for people. */
export interface Column<Row> {
  heading: string
  cell(row: Row): string
  /** Numbers end at the same place. */
  right?: boolean
  /** It is left out where the table would be wider than a terminal. */
  spare?: boolean
}

const COLUMNS = 80
const GAP = '  '

/**
 * A table, in lines of at most 80 characters where the cells allow that.
 * @param indent put before each line
 */
export function tableLines<Row>(
  columns: readonly Column<Row>[],
  rows: readonly Row[],
  indent = '',
): string[] {
  const all = columns.map(({ heading, cell, right, spare }) => {
    const cells = [heading]
    let width = heading.length
    for (const row of rows) {
      const text = oneLine(cell(row))
      cells.push(text)
      width = Math.max(width, text.length)
    }
    return { cells, width, right, spare }
  })
  const width = all.reduce((sum, one) => sum + one.width + GAP.length, indent.length - GAP.length)
  const shown = width <= COLUMNS ? all : all.filter(({ spare }) => !spare)
  return [undefined, ...rows].map((_, row) => {
    let line = indent
    for (const [i, { cells, width, right }] of shown.entries()) {
      if (i > 0) line += GAP
      line += right ? cells[row].padStart(width) : cells[row].padEnd(width)
    }
    return line.trimEnd()
  })
}
