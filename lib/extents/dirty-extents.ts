/** A run of guest bytes with the flags that an incremental backup needs. */
export interface DirtyExtent {
  /** Guest offset, bytes. */
  start: number
  /** Bytes, never 0. */
  length: number
  /** Written since the bitmap was added. */
  dirty: boolean
  /** Reads as zero through the whole chain. */
  zero: boolean
}

/**
 * Moves boundaries that lie inside a unit of `unit` bytes: the unit then is an extent of its own,
 * dirty if any byte of it is, and zero if all are.
 * @param batches ordered, contiguous from 0; end at a multiple of `unit`
 */
export async function* alignDirty(
  batches: AsyncIterable<Iterable<DirtyExtent>>,
  unit: number,
): AsyncGenerator<DirtyExtent[]> {
  let begun: DirtyExtent | undefined
  for await (const batch of batches) {
    const aligned: DirtyExtent[] = []
    for (const { start, length, dirty, zero } of batch) {
      const end = start + length
      let at = start
      if (begun) {
        at = Math.min(end, begun.start + unit)
        begun.length += at - start
        begun.dirty ||= dirty
        begun.zero &&= zero
        if (begun.length < unit) continue
        aligned.push(begun)
        begun = undefined
      }
      const whole = end - (end % unit)
      if (whole > at) aligned.push({ start: at, length: whole - at, dirty, zero })
      const rest = Math.max(whole, at)
      if (rest < end) begun = { start: rest, length: end - rest, dirty, zero }
    }
    yield aligned
  }
}

/** Joins neighbours with equal flags. */
export async function* mergeDirty(
  batches: AsyncIterable<Iterable<DirtyExtent>>,
): AsyncGenerator<DirtyExtent> {
  let last: DirtyExtent | undefined
  for await (const batch of batches) {
    for (const extent of batch) {
      if (last && last.dirty === extent.dirty && last.zero === extent.zero) {
        last.length += extent.length
      } else {
        if (last) yield last
        last = { ...extent }
      }
    }
  }
  if (last) yield last
}
