import { type Html, html } from '../../page/html.ts'
import { type Column, table } from '../../page/table.ts'
import type { RetentionPolicy } from '../../repository/retention.ts'
import { formatSize } from '../../units.ts'
import type { ReportedMachine, RepositoryReport } from './types.ts'

const RULES: Record<keyof RetentionPolicy, string> = {
  keepLast: 'last',
  keepHourly: 'hourly',
  keepDaily: 'daily',
  keepWeekly: 'weekly',
  keepMonthly: 'monthly',
  keepYearly: 'yearly',
}

/** What the next prune would do. */
export function retentionSection({ policy, machines }: RepositoryReport): Html | false {
  if (!policy) return false
  const rules = Object.entries(RULES).flatMap(([key, name]) => {
    const count = policy[key as keyof RetentionPolicy] ?? 0
    return count > 0 ? [`${count} ${name}`] : []
  })
  const columns: Column[] = [
    { label: 'Machine', text: 'words' },
    { label: 'Kept' },
    { label: 'Removed' },
    { label: 'Images made again', extra: true },
    { label: 'Space for that at most', extra: true },
    { label: 'Freed at most' },
  ]
  return html`<h2>The next prune</h2>
<p>Keeps of each machine ${rules.join(', ')}. What kept points need of removed ones becomes part of them: their
images are made again, and for a while both are there.</p>
${table(columns, machines.map(rowOf), { cards: false })}`
}

function rowOf({ machine, points, prune }: ReportedMachine) {
  const removed = points.filter(({ retention }) => retention?.keep === false).length
  const counts = [machine, points.length - removed, removed]
  if (!prune || prune.failure !== undefined) return [...counts, '', '', 'would fail']
  const { remade, neededBytes, freedBytes } = prune
  return [...counts, remade, formatSize(neededBytes), formatSize(Math.max(0, freedBytes))]
}
