/** Middle and ends of a handful of runs. With five of them a deviation would say nothing. */
export interface Spread {
  median: number
  min: number
  max: number
}

/** The middle value, or the mean of the two in the middle. @throws RangeError of no values */
export function median(values: number[]): number {
  if (values.length === 0) throw new RangeError('median of no values')
  const sorted = values.toSorted((a, b) => a - b)
  const half = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2
}

/** @throws RangeError of no values */
export function spread(values: number[]): Spread {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) }
}

/**
 * The ratio a[i]/b[i] of each pair. Two runs next to each other meet the same weather, so a slow
 * minute of the machine falls out of the ratio, as it would not out of a ratio of medians.
 * @throws RangeError if the lists differ in length
 */
export function pairwiseRatios(a: number[], b: number[]): number[] {
  if (a.length !== b.length) throw new RangeError(`${a.length} runs against ${b.length}`)
  return a.map((value, i) => value / b[i])
}
