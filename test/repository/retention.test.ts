import fc from 'fast-check'
import t from 'tap'
import {
  applyRetention,
  type DatedPoint,
  hasRule,
  type RetentionPolicy,
} from '../../lib/repository/retention.ts'

/** Points named by their times, all with the same disk unless another is given. */
function pointsAt(...times: (string | [string, ...string[]])[]): DatedPoint[] {
  return times.map((one) => {
    const [time, ...disks] = typeof one === 'string' ? [one, 'vda'] : one
    return { point: time, time, disks: disks.map((name) => ({ name })) }
  })
}

/** Times of the points kept, with why. */
function kept(points: readonly DatedPoint[], policy: RetentionPolicy): Record<string, string> {
  const verdicts = applyRetention(points, policy).filter(({ keep }) => keep)
  return Object.fromEntries(verdicts.map(({ point, reasons }) => [point.time, reasons.join(', ')]))
}

const NEWEST = 'newest: the next backup builds on it'

t.test('each rule keeps the last of each period, and says which', (t) => {
  const points = pointsAt(
    '2024-12-29T23:59:59Z',
    '2024-12-30T00:00:00Z',
    '2025-12-28T10:00:00Z',
    '2026-01-01T08:00:00Z',
    '2026-01-01T08:59:59.999Z',
    '2026-01-01T09:00:00+02:00',
    '2026-01-04T00:00:00Z',
  )
  t.strictSame(kept(points, { keepLast: 2 }), {
    '2026-01-01T08:59:59.999Z': 'last',
    '2026-01-04T00:00:00Z': `${NEWEST}, last`,
  })
  t.strictSame(kept(points, { keepHourly: 3 }), {
    '2026-01-01T09:00:00+02:00': 'hourly 2026-01-01T07',
    '2026-01-01T08:59:59.999Z': 'hourly 2026-01-01T08',
    '2026-01-04T00:00:00Z': `${NEWEST}, hourly 2026-01-04T00`,
  })
  t.strictSame(kept(points, { keepDaily: 2 }), {
    '2026-01-01T08:59:59.999Z': 'daily 2026-01-01',
    '2026-01-04T00:00:00Z': `${NEWEST}, daily 2026-01-04`,
  })
  t.strictSame(kept(points, { keepWeekly: 4 }), {
    '2024-12-29T23:59:59Z': 'weekly 2024-W52',
    '2024-12-30T00:00:00Z': 'weekly 2025-W01',
    '2025-12-28T10:00:00Z': 'weekly 2025-W52',
    '2026-01-04T00:00:00Z': `${NEWEST}, weekly 2026-W01`,
  })
  t.strictSame(kept(points, { keepMonthly: 1, keepYearly: 2 }), {
    '2025-12-28T10:00:00Z': 'yearly 2025',
    '2026-01-04T00:00:00Z': `${NEWEST}, monthly 2026-01, yearly 2026`,
  })
  t.end()
})

t.test('weeks are those of ISO 8601', (t) => {
  // Of years that begin on each day of the week, the last and the first days.
  const weeks: [string, string][] = [
    ['2019-12-30', '2020-W01'],
    ['2021-01-03', '2020-W53'],
    ['2021-01-04', '2021-W01'],
    ['2022-01-02', '2021-W52'],
    ['2023-01-01', '2022-W52'],
    ['2024-01-01', '2024-W01'],
    ['2024-12-31', '2025-W01'],
    ['2026-12-31', '2026-W53'],
    ['2027-01-03', '2026-W53'],
    ['2028-02-29', '2028-W09'],
  ]
  for (const [day, week] of weeks) {
    const [{ reasons }] = applyRetention(pointsAt(`${day}T23:00:00Z`), { keepWeekly: 1 })
    t.strictSame(reasons, [NEWEST, `weekly ${week}`], day)
  }
  t.end()
})

t.test('the oldest point stays while a rule has some left', (t) => {
  const points = pointsAt('2026-01-01T01:00:00Z', '2026-01-01T02:00:00Z', '2026-01-02T01:00:00Z')
  t.strictSame(kept(points, { keepDaily: 3 }), {
    '2026-01-01T01:00:00Z': 'oldest daily 2026-01-01',
    '2026-01-01T02:00:00Z': 'daily 2026-01-01',
    '2026-01-02T01:00:00Z': `${NEWEST}, daily 2026-01-02`,
  })
  t.strictSame(
    Object.keys(kept(points, { keepDaily: 2 })),
    points.slice(1).map((p) => p.time),
  )
  t.end()
})

t.test('the newest of a machine and of each disk stays, whatever the policy says', (t) => {
  const points = pointsAt(
    ['2026-01-01T00:00:00Z', 'gone', 'vda'],
    ['2026-01-02T00:00:00Z', 'vda', 'vdb'],
    ['2026-01-03T00:00:00Z', 'vda'],
    ['2026-01-04T00:00:00Z', 'vda'],
  )
  t.strictSame(kept(points, {}), {
    '2026-01-01T00:00:00Z': 'newest of disk gone',
    '2026-01-02T00:00:00Z': 'newest of disk vdb',
    '2026-01-04T00:00:00Z': NEWEST,
  })
  t.strictSame(applyRetention(points, {})[2].reasons, ['no rule keeps it'])
  t.strictSame(applyRetention([], { keepLast: 1 }), [])
  t.end()
})

t.test('a policy of nothing but zeroes has no rule', (t) => {
  t.notOk(hasRule({}))
  t.notOk(hasRule({ keepLast: 0, keepDaily: 0 }))
  t.ok(hasRule({ keepYearly: 1 }))
  t.ok(hasRule({ keepLast: 1 }))
  t.end()
})

const RULES = [
  'keepLast',
  'keepHourly',
  'keepDaily',
  'keepWeekly',
  'keepMonthly',
  'keepYearly',
] as const

const histories = fc
  .array(
    fc.record({
      // Dense, so that periods have several; and over years.
      minutes: fc.oneof(fc.nat(600), fc.nat(60 * 24 * 40), fc.nat(60 * 24 * 1500)),
      disks: fc.subarray(['a', 'b', 'c'], { minLength: 1 }),
    }),
    { maxLength: 40 },
  )
  .map((all) =>
    all.map(({ minutes, disks }, i) => ({
      point: `p${i}`,
      time: new Date(Date.UTC(2023, 11, 20) + minutes * 60_000).toISOString(),
      disks: disks.map((name) => ({ name })),
    })),
  )
const policies = fc.record(
  Object.fromEntries(RULES.map((rule) => [rule, fc.nat(6)])) as Record<
    string,
    fc.Arbitrary<number>
  >,
  { requiredKeys: [] },
) as fc.Arbitrary<RetentionPolicy>

const namesKept = (points: readonly DatedPoint[], policy: RetentionPolicy) =>
  new Set(applyRetention(points, policy).flatMap(({ point, keep }) => (keep ? [point.point] : [])))

t.test('whatever the history and the policy', (t) => {
  fc.assert(
    fc.property(histories, policies, fc.constantFrom(...RULES), (points, policy, rule) => {
      const all = namesKept(points, policy)
      // Rules do not know of each other.
      const each = RULES.map((one) => namesKept(points, { [one]: policy[one] ?? 0 }))
      const together = new Set(each.flatMap((some) => [...some]))
      const areIndependent = all.size === together.size
      // Who asks for more never gets less.
      const more = namesKept(points, { ...policy, [rule]: (policy[rule] ?? 0) + 1 })
      const grows = [...all].every((point) => more.has(point))
      // A second prune has nothing to do, and the order of what it looks at means nothing.
      const rest = points.filter(({ point }) => all.has(point))
      const lasts = namesKept(rest.reverse(), policy).size === all.size
      // No disk loses its last backup.
      const diskNames = (some: readonly DatedPoint[]) =>
        new Set(some.flatMap(({ disks }) => disks.map(({ name }) => name))).size
      const keepsDisks = diskNames(points) === diskNames(rest)
      return areIndependent && grows && lasts && keepsDisks
    }),
    { numRuns: 300 },
  )
  t.end()
})

t.test('a rule keeps one point of each of the newest periods, and what else is old', (t) => {
  const day = (time: string) => time.slice(0, 10)
  fc.assert(
    fc.property(histories, fc.integer({ min: 1, max: 8 }), (points, count) => {
      const verdicts = applyRetention(points, { keepDaily: count })
      const daily = verdicts.filter(({ reasons }) => reasons.some((why) => why.startsWith('daily')))
      const days = [...new Set(points.map(({ time }) => day(time)))].sort().slice(-count)
      const last = days.map((one) =>
        points
          .map(({ time }) => time)
          .filter((time) => day(time) === one)
          .sort()
          .at(-1),
      )
      return JSON.stringify(daily.map(({ point }) => point.time)) === JSON.stringify(last)
    }),
    { numRuns: 200 },
  )
  t.end()
})
