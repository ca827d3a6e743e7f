import type { Mark } from './chart.ts'

const MINUTE = 60_000
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR
const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
/** Marks that an axis has at most. */
const MOST = 7

/** Times that are equally far apart to people. All is UTC. */
interface Step {
  /** About, milliseconds. */
  size: number
  /** The first at or after a time. */
  first(time: number): number
  next(time: number): number
}

/** A week begins on Monday: the first one of the epoch is its fourth day. */
const MONDAY = 4 * DAY

const STEPS: readonly Step[] = [
  ...[1, 5, 15, 30].map((minutes) => fixed(minutes * MINUTE, 0)),
  ...[1, 3, 6, 12].map((hours) => fixed(hours * HOUR, 0)),
  ...[1, 2].map((days) => fixed(days * DAY, 0)),
  ...[1, 2].map((weeks) => fixed(weeks * 7 * DAY, MONDAY)),
  ...[1, 3, 6, 12, 24, 60, 120, 600, 1200].map(months),
]

function fixed(size: number, origin: number): Step {
  return {
    size,
    first: (time) => Math.ceil((time - origin) / size) * size + origin,
    next: (time) => time + size,
  }
}

function months(count: number): Step {
  /** The beginning of the period of so many months in which a time is, or of one after it. */
  const beginning = (time: number, later = 0) => {
    const date = new Date(time)
    const month = date.getUTCFullYear() * 12 + date.getUTCMonth()
    const first = (Math.floor(month / count) + later) * count
    return Date.UTC(Math.floor(first / 12), first % 12)
  }
  return {
    size: count * 30.4 * DAY,
    first: (time) => (beginning(time) === time ? time : beginning(time, 1)),
    next: (time) => beginning(time, 1),
  }
}

/** Round times from one to another, in milliseconds since 1970, as marks of an axis. */
export function timeMarks(from: number, to: number): Mark[] {
  const span = Math.max(to - from, 1)
  const step = STEPS.find(({ size }) => span / size <= MOST) ?? STEPS[STEPS.length - 1]
  const marks: Mark[] = []
  for (let time = step.first(from); time <= to && marks.length < 2 * MOST; time = step.next(time)) {
    marks.push({ at: (time - from) / span, label: labelOf(time, step.size) })
  }
  return marks
}

function labelOf(time: number, step: number): string {
  const date = new Date(time)
  const [day, month, year] = [date.getUTCDate(), date.getUTCMonth(), date.getUTCFullYear()]
  if (step < DAY && time % DAY !== 0) return date.toISOString().slice(11, 16)
  if (step < 28 * DAY) return `${day} ${MONTHS[month]}`
  return step >= 360 * DAY ? `${year}` : `${MONTHS[month]} ${year}`
}
