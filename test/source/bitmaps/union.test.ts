import fc from 'fast-check'
import t from 'tap'
import type { DirtyRun } from '../../../lib/format/qcow2/bits.ts'
import { unionOfRuns } from '../../../lib/source/bitmaps/union.ts'

/** Runs of a bitmap, in batches of some length. */
async function* batches(bits: readonly boolean[], most: number): AsyncGenerator<DirtyRun[]> {
  let batch: DirtyRun[] = []
  for (let at = 0; at < bits.length; ) {
    let to = at
    while (to < bits.length && bits[to] === bits[at]) to++
    batch.push({ start: at, length: to - at, dirty: bits[at] })
    at = to
    if (batch.length >= most) {
      yield batch
      batch = []
    }
  }
  if (batch.length > 0) yield batch
}

t.test(
  'what any has as dirty, and all past the end of one, in runs that differ from their neighbours',
  async () => {
    const bitmap = fc.array(fc.boolean(), { maxLength: 60 })
    await fc.assert(
      fc.asyncProperty(
        fc.array(bitmap, { minLength: 1, maxLength: 4 }),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 80 }),
        async (all, most, size) => {
          const found: DirtyRun[] = []
          for await (const runs of unionOfRuns(
            all.map((bits) => batches(bits, most)),
            size,
          )) {
            found.push(...runs)
          }
          let at = 0
          for (const [i, { start, length, dirty }] of found.entries()) {
            if (start !== at || length <= 0) return false
            if (i > 0 && found[i - 1].dirty === dirty) return false
            for (; at < start + length; at++) {
              if (dirty !== all.some((bits) => bits[at] ?? true)) return false
            }
          }
          return at === size
        },
      ),
      { numRuns: 2000 },
    )
  },
)
