import type { Verified } from '../verified.ts'

/** An image that may be read. */
export interface Candidate {
  /** Length of its file. */
  bytes: number
  /** When it was made, ISO 8601. */
  made: string
  /** When it was read the last time. */
  verified?: Verified
}

/**
 * Chooses what is read of many images: those that nobody has read for the longest time, until there is so much of
 * all bytes. One that was never read waits since it was made. So every image has its turn, however many new
 * ones come: with 5 % a day after at most 20 days.
 * @param percent of the bytes, more than 0, at most 100
 */
export function chooseSample<T extends Candidate>(
  images: readonly T[],
  percent: number,
  now: Date,
): Set<T> {
  // A clock was wrong where it is later than now: nobody knows how long that one waits.
  const since = ({ made, verified }: T) => {
    const time = Date.parse(verified?.time ?? made)
    return time > now.getTime() ? Number.NEGATIVE_INFINITY : time
  }
  const waiting = images.map((image) => ({ image, since: since(image) }))
  waiting.sort((a, b) => (a.since === b.since ? 0 : a.since - b.since))
  const wanted = (images.reduce((sum, { bytes }) => sum + bytes, 0) * percent) / 100
  const chosen = new Set<T>()
  let sum = 0
  for (const { image } of waiting) {
    if (sum >= wanted) break
    chosen.add(image)
    sum += image.bytes
  }
  return chosen
}
