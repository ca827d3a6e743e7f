import { intersect } from '../extents/intersect.ts'
import { DIRTY_FLAG, HOLE_FLAG, type StatusWindow, ZERO_FLAG } from '../nbd/block-status.ts'
import { BATCH } from './layer.ts'
import type { DirtyMapping } from './source.ts'

/**
 * The mappings of a window, in batches, neighbours of equal kind joined. Only ZERO says that bytes
 * read as zero: QEMU flags data of a backing file as HOLE where it exports a snapshot.
 * @param store index in `Source.stores` of the export
 */
export function* mappingsOf(
  window: StatusWindow,
  store: number,
): Generator<readonly DirtyMapping[]> {
  let out: DirtyMapping[] = []
  let last: DirtyMapping | undefined
  let start = window.start
  for (const { length: overlap, first, second } of intersect(window.allocation, window.dirty)) {
    const length = Math.min(overlap, window.end - start)
    if (length <= 0) break
    const dirty = (second & DIRTY_FLAG) !== 0
    const kind = (first & ZERO_FLAG) === 0 ? 'data' : (first & HOLE_FLAG) === 0 ? 'zero' : 'hole'
    if (last?.kind === kind && last.dirty === dirty) {
      last.length += length
    } else {
      if (out.length >= BATCH) {
        yield out
        out = []
      }
      last =
        kind === 'data'
          ? { kind, start, length, store, offset: start, dirty }
          : { kind, start, length, dirty }
      out.push(last)
    }
    start += length
  }
  if (out.length > 0) yield out
}
