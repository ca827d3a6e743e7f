import type { Lineage } from '../../repository/lineage.ts'
import { MAX_CHAIN } from '../../repository/parent-images.ts'
import { listed, quoted } from '../../text.ts'
import { formatAge } from '../../units.ts'
import { timeText } from '../parts.ts'
import type { MachineFacts } from './facts.ts'
import type { ReportedMachine, RepositoryNote } from './types.ts'

/** A backup is overdue after so many times the usual time between two, and never before so many milliseconds. */
const OVERDUE = 3
const OVERDUE_MS = 2 * 3_600_000
/** Images: half of what a chain may have before the next backup is full. */
const LONG_CHAIN = MAX_CHAIN / 2
/** A daily sample of 5 % reads everything in twenty days. */
const VERIFY_DAYS = 21
const DAY_MS = 86_400_000
/** Clocks differ. */
const AHEAD_MS = 3_600_000
/** Names in a sentence. */
const MAX_NAMED = 5

type Find = (
  facts: MachineFacts,
  lineage: Lineage,
  machine: ReportedMachine,
  now: Date,
) => Omit<RepositoryNote, 'machine'>[]

/** What is to be said of a machine. */
export function machineFindings(
  facts: MachineFacts,
  lineage: Lineage,
  machine: ReportedMachine,
  now: Date,
): RepositoryNote[] {
  const rules: Find[] = [
    broken,
    brokenJournals,
    missing,
    orphans,
    parents,
    verified,
    chains,
    overdue,
    clocks,
    prune,
  ]
  return rules.flatMap((rule) =>
    rule(facts, lineage, machine, now).map((one) => ({ ...one, machine: machine.machine })),
  )
}

const broken: Find = ({ inventory }) =>
  inventory.broken.map(({ error }) => ({ kind: 'record', level: 'fault', text: error.message }))

const brokenJournals: Find = ({ inventory }) =>
  inventory.brokenJournals.map(({ error: { message } }) => {
    const text = `${message}; no backup is made as long as it is there: see repository repair`
    return { kind: 'journal', level: 'fault', text }
  })

const missing: Find = ({ inventory, files }) => {
  const named = inventory.points.flatMap(({ disks }) => disks.map(({ image }) => image))
  const gone = named.filter((image) => !files.has(image))
  if (gone.length === 0) return []
  const text = `${count(gone.length, 'image')} that records name ${gone.length === 1 ? 'is' : 'are'} missing: ${names(gone)}`
  return [{ kind: 'missing', level: 'fault', text }]
}

const parents: Find = ({ inventory }, lineage) => {
  const lost = inventory.points.flatMap(({ disks }) =>
    disks.map((disk) => lineage.parentOf(disk)).filter((parent) => typeof parent === 'string'),
  )
  if (lost.length === 0) return []
  const [first] = lost
  const more = lost.length > 1 ? ` (and ${lost.length - 1} more like this)` : ''
  return [{ kind: 'parent', level: 'fault', text: `cannot be restored: ${first}${more}` }]
}

const orphans: Find = ({ inventory: { orphans, leftovers } }) => {
  const all: ReturnType<Find> = []
  if (orphans.length > 0) {
    const text = `${count(orphans.length, 'file')} that no record names: ${names(orphans)}`
    all.push({ kind: 'orphan', level: 'warning', text })
  }
  if (leftovers.length > 0) {
    const text = `a run is under way or was killed; the next one tidies up: ${names(leftovers)}`
    all.push({ kind: 'leftover', level: 'note', text })
  }
  return all
}

const verified: Find = (_facts, _lineage, { points }, now) => {
  const known = points.filter((point) => point.verified)
  const bad = known.filter((point) => !point.verified?.same)
  if (bad.length > 0) {
    const which = names(bad.map(({ point }) => point))
    const text = `${count(bad.length, 'point')} ${bad.length === 1 ? 'is' : 'are'} not as recorded, as the last verification found: ${which}`
    return [{ kind: 'different', level: 'fault', text }]
  }
  if (points.length === 0) return []
  if (known.length === 0) {
    return [{ kind: 'unverified', level: 'warning', text: 'no point was ever verified' }]
  }
  const late = (time: string) => now.getTime() - Date.parse(time) > VERIFY_DAYS * DAY_MS
  // A new point has its time too.
  const waiting = points.filter((one) => late(one.verified?.time ?? one.time))
  if (waiting.length === 0) return []
  const text = `${count(waiting.length, 'point')} ${waiting.length === 1 ? 'was' : 'were'} not verified within ${VERIFY_DAYS} days`
  return [{ kind: 'unverified', level: 'warning', text }]
}

const chains: Find = (_facts, _lineage, { points }) => {
  const longest = points.at(-1)?.depth ?? 0
  if (longest < LONG_CHAIN) return []
  const text = `the last point is read from ${longest} images; prune or make a full backup: at ${MAX_CHAIN} the next one is full`
  return [{ kind: 'chain', level: 'warning', text }]
}

const overdue: Find = (_facts, _lineage, { points, usualInterval }, now) => {
  const last = points.at(-1)
  if (!last || usualInterval === undefined) return []
  const age = now.getTime() - Date.parse(last.time)
  if (age <= Math.max(OVERDUE * usualInterval, OVERDUE_MS)) return []
  const usual = `usually there is one every ${formatAge(usualInterval)}`
  return [
    {
      kind: 'overdue',
      level: 'warning',
      text: `the last backup is ${formatAge(age)} old; ${usual}`,
    },
  ]
}

const clocks: Find = (_facts, _lineage, { points }, now) => {
  const last = points.at(-1)
  if (!last || Date.parse(last.time) - now.getTime() <= AHEAD_MS) return []
  const text = `the last point is of the future, ${timeText(last.time)}: a clock was wrong`
  return [{ kind: 'clock', level: 'warning', text }]
}

const prune: Find = ({ prune }) => {
  if (prune?.failure === undefined) return []
  return [{ kind: 'prune', level: 'warning', text: `a prune would fail: ${prune.failure}` }]
}

function names(all: readonly string[]): string {
  return listed(all, MAX_NAMED, quoted)
}

function count(n: number, what: string): string {
  return `${n} ${what}${n === 1 ? '' : 's'}`
}
