import fc from 'fast-check'
import t from 'tap'
import { coveredBytes, intersect, type StatusRuns } from '../../lib/extents/intersect.ts'

/** Runs with some of no length, which a server should not send. */
const runs = fc
  .array(fc.tuple(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 0, max: 3 })), {
    maxLength: 20,
  })
  .map((pairs) => Float64Array.from(pairs.flat()))

/** The flags of every byte. */
function paint(runs: StatusRuns): number[] {
  const bytes: number[] = []
  for (let i = 0; i < runs.length; i += 2) {
    for (let k = 0; k < runs[i]; k++) bytes.push(runs[i + 1])
  }
  return bytes
}

t.test('two contexts meet byte by byte, up to where the shorter ends', async (t) => {
  fc.assert(
    fc.property(runs, runs, (first, second) => {
      const overlaps = [...intersect(first, second)]
      const [a, b] = [paint(first), paint(second)]
      const bytes = overlaps.flatMap((it) => Array(it.length).fill([it.first, it.second]))
      const end = Math.min(a.length, b.length)
      t.equal(coveredBytes(first), a.length)
      t.ok(overlaps.every(({ length }) => length > 0))
      t.same(
        bytes,
        a.slice(0, end).map((flags, i) => [flags, b[i]]),
      )
    }),
  )
})

t.test('intersections of lengths beyond 32 bits are exact', async (t) => {
  const overlaps = [
    ...intersect(Float64Array.of(2 ** 44, 3), Float64Array.of(2 ** 43, 1, 2 ** 43, 0)),
  ]
  t.strictSame(overlaps, [
    { length: 2 ** 43, first: 3, second: 1 },
    { length: 2 ** 43, first: 3, second: 0 },
  ])
})
