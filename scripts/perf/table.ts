import type { Measured, Results, Unit, Verdict } from './results.ts'
import type { Spread } from './stats.ts'

/** Headings of the figures, in the order of `figures`. MB are 10^6 bytes. */
export const COLUMNS = [
  'case',
  'wall s ours',
  'peer',
  'limit',
  'wall ratio (min–max)',
  'CPU s ours',
  'peer',
  'CPU ratio (min–max)',
  'peak MB ours',
  'peer',
  'written MB ours',
  'peer',
  'file MB ours',
  'peer',
  'fragm. % ours',
  'peer',
  'limits met',
]

/** One row of the table: medians, each ratio the median of the pairwise ones with its spread. */
export function figures({ name, summary: s, verdicts }: Measured): string[] {
  const { fileSize, fragmentation, limit } = s
  return [
    name,
    seconds(s.wall.ours.median),
    seconds(s.wall.peer.median),
    limit ? seconds(limit.median) : '–',
    ratio(s.wall.ratio),
    seconds(s.cpu.ours.median),
    seconds(s.cpu.peer.median),
    ratio(s.cpu.ratio),
    megabytes(s.peak.ours.max),
    megabytes(s.peak.peer.max),
    megabytes(s.written.ours.median),
    megabytes(s.written.peer.median),
    megabytes(fileSize.ours),
    megabytes(fileSize.peer),
    fragmentation ? fragmentation.ours.toFixed(2) : '–',
    fragmentation ? fragmentation.peer.toFixed(2) : '–',
    `${verdicts.filter((v) => v.met).length}/${verdicts.length}`,
  ]
}

/** The results for a terminal: the table, then each limit with its mark. */
export function renderTable({ cases, quick }: Results): string {
  const measured = cases.filter((c) => 'summary' in c)
  const failed = cases.filter((c) => 'failure' in c)
  const lines = measured.length > 0 ? [...align([COLUMNS, ...measured.map(figures)]), ''] : []
  if (quick) lines.push('quick: smaller disks and few pairs; the limits are meant for a full run')
  const marks = measured.flatMap((c) => c.verdicts.map((v) => [c.name, ...verdictWords(v)]))
  lines.push(...align(marks, 2))
  lines.push(...failed.map((c) => `${c.name}  FAILED  ${c.failure}`))
  return `${lines.join('\n')}\n`
}

/** Name, figure and limit, and the mark. */
export function verdictWords({ what, value, most, unit, met }: Verdict): [string, string, string] {
  return [what, `${amount(value, unit)} ≤ ${amount(most, unit)}`, met ? '✓ pass' : '✗ miss']
}

/** Pads cells; the first `left` columns to the left, the others, being figures, to the right. */
function align(rows: string[][], left = 1): string[] {
  const widths = (rows[0] ?? []).map((_, i) => Math.max(...rows.map((row) => row[i].length)))
  const pad = (cell: string, i: number) =>
    i < left ? cell.padEnd(widths[i]) : cell.padStart(widths[i])
  return rows.map((row) => row.map(pad).join('  ').trimEnd())
}

function amount(value: number, unit: Unit): string {
  if (unit === 'ratio') return value.toFixed(2)
  const digits = unit === 'MB' || unit === 'KiB' ? 0 : 2
  return `${value.toFixed(digits)} ${unit}`
}

function seconds(value: number): string {
  return value.toFixed(value < 1 ? 3 : 2)
}

function ratio({ median, min, max }: Spread): string {
  return `${median.toFixed(2)} (${min.toFixed(2)}–${max.toFixed(2)})`
}

function megabytes(bytes: number): string {
  const value = bytes / 1e6
  return value.toFixed(value < 10 ? 2 : 0)
}
