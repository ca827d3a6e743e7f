import type { DirtyRun } from '../../format/qcow2/bits.ts'
import { BATCH } from '../layer.ts'
import type { DirtyMapping, Mapping } from '../source.ts'
import { RunCursor } from './run-cursor.ts'

/** The part of a mapping from `start` on, `length` bytes; it keeps where those bytes are. */
export function sliceMapping(mapping: Mapping, start: number, length: number): Mapping {
  const skipped = start - mapping.start
  switch (mapping.kind) {
    case 'zero':
    case 'hole':
      return { kind: mapping.kind, start, length }
    case 'data': {
      const { kind, store, offset } = mapping
      return { kind, start, length, store, offset: offset + skipped }
    }
    default:
      return { ...mapping, start, length, within: mapping.within + skipped }
  }
}

/**
 * Cuts mappings where a bitmap changes and says of each whether it is dirty. Both streams are
 * contiguous, from 0 to the same end; neither needs to know the other's borders.
 */
export async function* mark(
  batches: AsyncIterable<readonly Mapping[]>,
  runs: AsyncIterable<readonly DirtyRun[]>,
): AsyncGenerator<readonly DirtyMapping[]> {
  const bitmap = new RunCursor(runs)
  try {
    for await (const batch of batches) {
      let out: DirtyMapping[] = []
      for (const mapping of batch) {
        const end = mapping.start + mapping.length
        for (let at = mapping.start; at < end; ) {
          const run = bitmap.at(at) ?? (await bitmap.read(at))
          if (!run) throw new Error(`the bitmap ends before offset ${at}`)
          const to = Math.min(end, run.start + run.length)
          // Not by spreading it, which takes six times as long, and there may be millions.
          out.push(Object.assign(sliceMapping(mapping, at, to - at), { dirty: run.dirty }))
          at = to
          if (out.length >= BATCH) {
            yield out
            out = []
          }
        }
      }
      if (out.length > 0) yield out
    }
  } finally {
    await bitmap.close()
  }
}
