/**
 * An NBD server's status of a range in one metadata context: pairs of a length in bytes and the
 * flags of that many bytes (NBD protocol, NBD_REPLY_TYPE_BLOCK_STATUS).
 */
export type StatusRuns = Float64Array

/** A stretch in which two contexts are constant. */
export interface Overlap {
  /** Bytes, never 0. */
  length: number
  /** Flags of the first and of the second context. */
  first: number
  second: number
}

/** Bytes that runs speak of. */
export function coveredBytes(runs: StatusRuns): number {
  let bytes = 0
  for (let i = 0; i < runs.length; i += 2) bytes += runs[i]
  return bytes
}

/**
 * Walks two contexts from one start, up to where the shorter one ends: a server splits each as it
 * likes, and answers for as much of each as it likes.
 */
export function* intersect(first: StatusRuns, second: StatusRuns): Generator<Overlap> {
  let i = 0
  let j = 0
  // Bytes left of the runs at i and j.
  let left = first[0]
  let right = second[0]
  while (i < first.length && j < second.length) {
    const length = Math.min(left, right)
    if (length > 0) yield { length, first: first[i + 1], second: second[j + 1] }
    left -= length
    right -= length
    if (left === 0) {
      i += 2
      left = first[i]
    }
    if (right === 0) {
      j += 2
      right = second[j]
    }
  }
}
