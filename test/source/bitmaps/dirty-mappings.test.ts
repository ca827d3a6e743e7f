import fc from 'fast-check'
import t from 'tap'
import { mark, sliceMapping } from '../../../lib/source/bitmaps/dirty-mappings.ts'
import type { DirtyMapping, Mapping } from '../../../lib/source/source.ts'
import { batched, bytesOf, contiguousMappings, dirtyRuns } from '../../support/mappings.ts'

async function collect(batches: AsyncIterable<readonly DirtyMapping[]>): Promise<DirtyMapping[]> {
  const all: DirtyMapping[] = []
  for await (const batch of batches) all.push(...batch)
  return all
}

t.test('a slice keeps where its bytes are', async (t) => {
  const compressed = { kind: 'zstd', store: 1, offset: 700, size: 512, clusterSize: 4096 } as const
  t.strictSame(sliceMapping({ ...compressed, start: 100, length: 50, within: 7 }, 120, 10), {
    ...compressed,
    start: 120,
    length: 10,
    within: 27,
  })
  t.strictSame(sliceMapping({ kind: 'data', start: 8, length: 8, store: 2, offset: 64 }, 10, 4), {
    ...{ kind: 'data', start: 10, length: 4, store: 2, offset: 66 },
  })
  t.strictSame(sliceMapping({ kind: 'hole', start: 8, length: 8 }, 8, 4), {
    ...{ kind: 'hole', start: 8, length: 4 },
  })
})

t.test('every byte keeps its place and gets the flag of its bit', async (t) => {
  const property = fc.asyncProperty(
    contiguousMappings,
    fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }),
    fc.integer({ min: 1, max: 5 }),
    async (mappings, lengths, batch) => {
      const size = mappings.reduce((sum, { length }) => sum + length, 0)
      const runs = dirtyRuns(size, lengths)
      const marked = await collect(mark(batched(mappings, batch), batched(runs, batch)))
      const dirty = runs.flatMap((run) => Array.from({ length: run.length }, () => run.dirty))
      const flags = marked.flatMap((one) => Array.from({ length: one.length }, () => one.dirty))
      t.strictSame(flags, dirty)
      t.strictSame(bytesOf(marked), bytesOf(mappings))
    },
  )
  await fc.assert(property, { numRuns: 200 })
})

t.test('one mapping over a million runs leaves in batches of bounded size', async (t) => {
  const size = 1e6
  const mappings: Mapping[] = [{ kind: 'hole', start: 0, length: size }]
  const runs = dirtyRuns(size, [1])
  let at = 0
  for await (const batch of mark(batched(mappings, 1), batched(runs, 8192))) {
    if (batch.length > 8192) t.fail(`a batch of ${batch.length}`)
    for (const one of batch) if (one.start !== at++) t.fail(`${one.start} where ${at} was due`)
  }
  t.equal(at, size)
})

t.test('the bitmap is closed when nobody wants more', async (t) => {
  let closed = false
  async function* runs() {
    try {
      yield [{ start: 0, length: 10, dirty: true }]
    } finally {
      closed = true
    }
  }
  const mappings: Mapping[] = [{ kind: 'hole', start: 0, length: 10 }]
  for await (const _ of mark(batched(mappings, 1), runs())) break
  t.ok(closed)
})
