/**
 * How much a test does. `npm test` is for the next few minutes of somebody who waits: it meets every
 * case once. `THOROUGH=1`, which CI sets, covers every combination and repeats random cases.
 */
export const THOROUGH = process.env.THOROUGH === '1'

/** Options of a test that a quick run leaves out: a guest has to boot for it alone. */
export const THOROUGH_ONLY = { skip: !THOROUGH && 'only in a thorough run' }

/** One of two amounts of work, counts or lists of cases. */
export function effort<T>(quick: T, thorough: T): T {
  return THOROUGH ? thorough : quick
}

/**
 * The values that case number `index` meets: all of them in a thorough run, else one, in turn, so
 * that each value is still met by some case.
 */
export function someOf<T>(values: readonly T[], index: number): readonly T[] {
  return THOROUGH ? values : [values[index % values.length]]
}
