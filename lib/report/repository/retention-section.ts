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
    { label: 'Points', extra: true },
    { label: 'Kept' },
    { label: 'Removed' },
    { label: 'Images of those' },
  ]
  return html`<h2>The next prune</h2>
<p>Keeps of each machine ${rules.join(', ')}. What kept points need of removed ones is joined into them, so
that less is freed than the images of the removed points take.</p>
${table(columns, machines.map(rowOf), { cards: false })}`
}

function rowOf({ machine, points }: ReportedMachine) {
  const removed = points.filter(({ retention }) => retention?.keep === false)
  const bytes = removed.reduce((sum, { storedBytes }) => sum + storedBytes, 0)
  const kept = points.length - removed.length
  return [machine, points.length, kept, removed.length, formatSize(bytes)]
}
