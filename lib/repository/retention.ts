import { oldestFirst, type PointRecord } from './record.ts'

/** How many points of each kind are kept; one may be of several kinds. Times are UTC. */
export interface RetentionPolicy {
  /** The last ones. */
  keepLast?: number
  /** The last one of each of so many hours, days … in which there are any. */
  keepHourly?: number
  keepDaily?: number
  /** ISO 8601: a week begins on Monday. */
  keepWeekly?: number
  keepMonthly?: number
  keepYearly?: number
}

/** What becomes of a point, and why. */
export interface RetentionVerdict<Point> {
  point: Point
  keep: boolean
  reasons: string[]
}

/** What a policy looks at. */
export type DatedPoint = Pick<PointRecord, 'point' | 'time'> & {
  disks: readonly { name: string }[]
}

/** What a point is by a rule, and the period by which it is told from others of the kind. */
const RULES: readonly { key: keyof RetentionPolicy; kind: string; period(time: Date): string }[] = [
  { key: 'keepHourly', kind: 'hourly', period: (time) => time.toISOString().slice(0, 13) },
  { key: 'keepDaily', kind: 'daily', period: (time) => time.toISOString().slice(0, 10) },
  { key: 'keepWeekly', kind: 'weekly', period: weekOf },
  { key: 'keepMonthly', kind: 'monthly', period: (time) => time.toISOString().slice(0, 7) },
  { key: 'keepYearly', kind: 'yearly', period: (time) => time.toISOString().slice(0, 4) },
]

const WEEK_MS = 7 * 86_400_000

/** Whether a policy has a rule at all: without one it says nothing, and must not remove everything. */
export function hasRule({ keepLast = 0, ...rules }: RetentionPolicy): boolean {
  return keepLast > 0 || RULES.some(({ key }) => (rules[key as keyof typeof rules] ?? 0) > 0)
}

/**
 * Decides which points of a machine are kept, as restic does: of each period the last point, and while
 * a rule has some left, the oldest of all, so that the history is as long as it can be. Whatever
 * the policy says, the newest one of the machine and of each disk stays: the next backup builds on it, and
 * a disk never loses its only backup.
 * @param points of one machine, in any order
 * @returns oldest first
 */
export function applyRetention<Point extends DatedPoint>(
  points: readonly Point[],
  policy: RetentionPolicy,
): RetentionVerdict<Point>[] {
  const newestFirst = [...points].sort(oldestFirst).reverse()
  const reasons = new Map<Point, string[]>(newestFirst.map((point) => [point, []]))
  const keep = (point: Point, reason: string) => reasons.get(point)!.push(reason)

  for (const [point, reason] of newestOnes(newestFirst)) keep(point, reason)
  for (const point of newestFirst.slice(0, policy.keepLast ?? 0)) keep(point, 'last')
  for (const { key, kind, period } of RULES) {
    let left = policy[key] ?? 0
    let before: string | undefined
    for (const [i, point] of newestFirst.entries()) {
      if (left === 0) break
      const now = period(new Date(point.time))
      const isOldest = i === newestFirst.length - 1
      if (now === before && !isOldest) continue
      keep(point, `${now === before ? 'oldest ' : ''}${kind} ${now}`)
      before = now
      left--
    }
  }
  return newestFirst.reverse().map((point) => {
    const why = reasons.get(point)!
    const isKept = why.length > 0
    return { point, keep: isKept, reasons: isKept ? why : ['no rule keeps it'] }
  })
}

function* newestOnes<Point extends DatedPoint>(newestFirst: readonly Point[]) {
  const seen = new Set<string>()
  for (const [i, point] of newestFirst.entries()) {
    const disks = point.disks.filter(({ name }) => !seen.has(name))
    for (const { name } of disks) seen.add(name)
    if (i === 0) yield [point, 'newest: the next backup builds on it'] as const
    else for (const { name } of disks) yield [point, `newest of disk ${name}`] as const
  }
}

/** `2026-W48`: the week belongs to the year that its Thursday is in. */
function weekOf(time: Date): string {
  const thursday = new Date(time)
  thursday.setUTCDate(time.getUTCDate() + 4 - (time.getUTCDay() || 7))
  const year = thursday.getUTCFullYear()
  const week = Math.floor((thursday.getTime() - Date.UTC(year, 0)) / WEEK_MS) + 1
  return `${year}-W${String(week).padStart(2, '0')}`
}
