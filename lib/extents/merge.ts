import type { Extent } from './extent.ts'

/** Ordered, contiguous extents that come in batches. */
export type ExtentBatches = AsyncIterable<Iterable<Extent>> | Iterable<Iterable<Extent>>

/**
 * Moves boundaries that lie inside a unit of `unit` bytes, so that a unit that is not wholly zero
 * counts as data. Disks are read and compared in sectors, but a file may end in the middle of one.
 * @param batches end at a multiple of `unit`
 */
export async function* alignExtents(
  batches: ExtentBatches,
  unit: number,
): AsyncGenerator<Extent[]> {
  let start = 0
  for await (const batch of batches) {
    const aligned: Extent[] = []
    for (const { start: from, length, zero, hole } of batch) {
      const units = (from + length) / unit
      const end = unit * (zero ? Math.floor(units) : Math.ceil(units))
      if (end <= start) continue
      aligned.push({ start, length: end - start, zero, hole })
      start = end
    }
    yield aligned
  }
}

/** Joins neighbours with equal flags. */
export async function* mergeExtents(batches: ExtentBatches): AsyncGenerator<Extent> {
  let last: Extent | undefined
  for await (const batch of batches) {
    for (const extent of batch) {
      if (last && last.zero === extent.zero && last.hole === extent.hole) {
        last.length += extent.length
      } else {
        if (last) yield last
        last = { ...extent }
      }
    }
  }
  if (last) yield last
}
