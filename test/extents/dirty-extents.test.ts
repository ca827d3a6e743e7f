import fc from 'fast-check'
import t from 'tap'
import { alignDirty, type DirtyExtent, mergeDirty } from '../../lib/extents/dirty-extents.ts'

const UNIT = 8

/** Ordered, contiguous extents with random flags, to a multiple of the unit, cut into batches. */
const batches = fc
  .tuple(
    fc.array(fc.tuple(fc.integer({ min: 1, max: 30 }), fc.boolean(), fc.boolean()), {
      minLength: 1,
      maxLength: 30,
    }),
    fc.integer({ min: 1, max: 30 }),
  )
  .map(([runs, size]) => {
    let start = 0
    const extents = runs.map(([length, dirty, zero]) => {
      const extent = { start, length, dirty, zero }
      start += length
      return extent
    })
    extents[extents.length - 1].length += (UNIT - (start % UNIT)) % UNIT
    const out: DirtyExtent[][] = []
    for (let i = 0; i < extents.length; i += size) out.push(extents.slice(i, i + size))
    return out
  })

async function* stream(input: readonly DirtyExtent[][]): AsyncGenerator<DirtyExtent[]> {
  yield* input
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = []
  for await (const item of items) out.push(item)
  return out
}

/** One character per byte: clean or dirty (small or capital), data or zero. */
function paint(extents: readonly DirtyExtent[]): string {
  let start = 0
  return extents
    .map((it) => {
      if (it.start !== start) throw new Error(`an extent starts at ${it.start}, not ${start}`)
      start += it.length
      const letter = it.zero ? 'z' : 'd'
      return (it.dirty ? letter.toUpperCase() : letter).repeat(it.length)
    })
    .join('')
}

t.test('a unit is dirty if any byte of it is, and zero if all are', async (t) => {
  await fc.assert(
    fc.asyncProperty(batches, async (input) => {
      const before = structuredClone(input)
      const aligned = (await collect(alignDirty(stream(input), UNIT))).flat()
      t.same(input, before, 'the input is left alone')
      const was = paint(input.flat()).match(/.{8}/g)!
      const now = paint(aligned).match(/.{8}/g)!
      const expected = was.map((unit) => {
        const letter = /d/i.test(unit) ? 'd' : 'z'
        return (/[A-Z]/.test(unit) ? letter.toUpperCase() : letter).repeat(UNIT)
      })
      t.same(now, expected)
    }),
  )
})

t.test('merging keeps the flags of every byte and leaves no equal neighbours', async (t) => {
  await fc.assert(
    fc.asyncProperty(batches, async (input) => {
      const merged = await collect(mergeDirty(stream(input)))
      t.equal(paint(merged), paint(input.flat()))
      for (const [i, { dirty, zero }] of merged.entries()) {
        const next = merged[i + 1]
        t.notOk(next && next.dirty === dirty && next.zero === zero)
      }
    }),
  )
  t.same(await collect(mergeDirty(stream([]))), [])
})
