import type { DirtyRun } from '../../format/qcow2/bits.ts'
import { BATCH } from '../layer.ts'
import { RunCursor } from './run-cursor.ts'

/**
 * The union of several bitmaps of a chain. An image that is shorter than the disk hides
 * the content of those below it there, and its bitmap cannot record that: bytes past its end count as dirty.
 * @returns batches of contiguous runs from 0 to `size`, neighbours differ
 * @param all each ordered and contiguous from 0 to the end of its image's disk
 * @param size bytes
 */
export async function* unionOfRuns(
  all: readonly AsyncIterable<readonly DirtyRun[]>[],
  size: number,
): AsyncGenerator<readonly DirtyRun[]> {
  const bitmaps = all.map((runs) => new RunCursor(runs))
  const out: DirtyRun[] = []
  try {
    for (let at = 0; at < size; ) {
      let end = size
      let dirtyEnd = at
      for (const bitmap of bitmaps) {
        const run = bitmap.at(at) ?? (await bitmap.read(at))
        if (!run) {
          dirtyEnd = size
          continue
        }
        const to = Math.min(run.start + run.length, size)
        if (run.dirty) dirtyEnd = Math.max(dirtyEnd, to)
        end = Math.min(end, to)
      }
      const dirty = dirtyEnd > at
      if (dirty) end = dirtyEnd
      const last = out.at(-1)
      if (last?.dirty === dirty) {
        last.length += end - at
      } else {
        // The last one may still grow.
        if (out.length > BATCH) yield out.splice(0, out.length - 1)
        out.push({ start: at, length: end - at, dirty })
      }
      at = end
    }
    if (out.length > 0) yield out
  } finally {
    for (const bitmap of bitmaps) await bitmap.close()
  }
}
