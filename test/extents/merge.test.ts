import fc from 'fast-check'
import t from 'tap'
import type { Extent } from '../../lib/extents/extent.ts'
import { alignExtents, mergeExtents } from '../../lib/extents/merge.ts'

/** Ordered, contiguous extents with random flags, cut into batches. */
const batches = fc
  .array(
    fc.record({ length: fc.integer({ min: 1, max: 40 }), zero: fc.boolean(), hole: fc.boolean() }),
    {
      minLength: 1,
      maxLength: 30,
    },
  )
  .chain((runs) => {
    let start = 0
    const extents = runs.map((run) => {
      const extent = { start, length: run.length, zero: run.zero, hole: run.zero && run.hole }
      start += run.length
      return extent
    })
    return fc.integer({ min: 1, max: 30 }).map((size) => {
      const out: Extent[][] = []
      for (let i = 0; i < extents.length; i += size) out.push(extents.slice(i, i + size))
      return out
    })
  })

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = []
  for await (const item of items) out.push(item)
  return out
}

/** One character per byte: data, zero or hole. */
function paint(extents: readonly Extent[]): string {
  return extents.map((e) => (e.hole ? 'h' : e.zero ? 'z' : 'd').repeat(e.length)).join('')
}

t.test('merging keeps the flags of every byte and leaves no equal neighbours', async (t) => {
  await fc.assert(
    fc.asyncProperty(batches, async (input) => {
      const before = structuredClone(input)
      const merged = await collect(mergeExtents(input))
      t.same(input, before, 'the input is left alone')
      let start = 0
      for (const [i, extent] of merged.entries()) {
        if (extent.start !== start) return false
        start += extent.length
        const next = merged[i + 1]
        if (next && next.zero === extent.zero && next.hole === extent.hole) return false
      }
      return paint(merged) === paint(input.flat())
    }),
  )
})

t.test('aligned extents are zero exactly in units that are wholly zero', async (t) => {
  const unit = 8
  await fc.assert(
    fc.asyncProperty(batches, async (input) => {
      // The list has to end at a unit.
      const flat = input.flat()
      const last = flat[flat.length - 1]
      last.length += (unit - ((last.start + last.length) % unit)) % unit
      const bytes = paint(flat)
      const aligned = (await collect(alignExtents(input, unit))).flat()
      const units = bytes.match(/.{8}/g) as string[]
      const got = paint(aligned).match(/.{8}/g) as string[]
      t.equal(got.length, units.length)
      for (const [i, was] of units.entries()) {
        if (got[i] !== got[i][0].repeat(unit)) return false
        if (was.includes('d') !== (got[i][0] === 'd')) return false
        if (!was.includes('d') && /^(.)\1*$/.test(was) && got[i] !== was) return false
      }
      return true
    }),
  )
})

t.test('an empty list stays empty', async (t) => {
  t.same(await collect(mergeExtents([])), [])
  t.same(await collect(mergeExtents([[]])), [])
})
