import fc from 'fast-check'
import t from 'tap'
import { type Range, RangeSet } from '../../lib/extents/range-set.ts'

/** So large that offsets pass 2^32 soon: 64 units are 16 TiB. */
const UNIT = 2 ** 38
const UNITS = 64

const area = fc
  .tuple(fc.nat(UNITS), fc.nat(UNITS))
  .map(([a, b]) => ({ start: Math.min(a, b) * UNIT, length: Math.abs(a - b) * UNIT }))

const change = fc.record({ what: fc.constantFrom('add', 'remove', 'within'), area })

/** The longest runs of units inside the area of which `is` holds. */
function runsOf(is: (unit: number) => boolean, { start, length }: Range): Range[] {
  const runs: Range[] = []
  for (let unit = start / UNIT; unit < (start + length) / UNIT; unit++) {
    if (!is(unit)) continue
    const last = runs.at(-1)
    if (last && last.start + last.length === unit * UNIT) last.length += UNIT
    else runs.push({ start: unit * UNIT, length: UNIT })
  }
  return runs
}

function areasOf(...areas: readonly (readonly [start: number, end: number])[]): RangeSet {
  const set = new RangeSet()
  for (const [start, end] of areas) set.add({ start, length: end - start })
  return set
}

function ranges(areas: Iterable<Range>): [start: number, end: number][] {
  return [...areas].map(({ start, length }) => [start, start + length])
}

t.test('a set of areas is a set of bytes', async (t) => {
  await fc.assert(
    fc.property(fc.array(change, { maxLength: 60 }), (changes) => {
      const model = new Array<boolean>(UNITS).fill(false)
      const isIn = (unit: number) => model[unit]
      const areas = new RangeSet()
      for (const { what, area } of changes) {
        const inside = runsOf(isIn, area)
        if (what === 'add') areas.add(area)
        else t.strictSame(what === 'remove' ? areas.remove(area) : areas.within(area), inside)
        const end = (area.start + area.length) / UNIT
        if (what !== 'within') model.fill(what === 'add', area.start / UNIT, end)
        // The model's runs are the longest: areas that touch would not equal them.
        t.strictSame([...areas], runsOf(isIn, { start: 0, length: UNITS * UNIT }))
        t.equal(areas.bytes, UNIT * model.filter(Boolean).length)
        t.equal(areas.isEmpty, !model.includes(true))
      }
    }),
  )
})

t.test('neighbours become one area', async (t) => {
  t.strictSame(ranges(areasOf([0, 10], [10, 20])), [[0, 20]])
  t.strictSame(ranges(areasOf([10, 20], [0, 10])), [[0, 20]])
  t.strictSame(ranges(areasOf([0, 10], [20, 30], [10, 20])), [[0, 30]])
  t.strictSame(ranges(areasOf([0, 10], [11, 20])), [
    [0, 10],
    [11, 20],
  ])
})

t.test('what is removed or asked for is cut at the ends of the area', async (t) => {
  const areas = areasOf([0, 10], [20, 30], [40, 50])
  const middle = { start: 5, length: 40 }
  const inside = [
    [5, 10],
    [20, 30],
    [40, 45],
  ]
  t.strictSame(ranges(areas.within(middle)), inside)
  t.equal(areas.bytes, 30, 'asking changes nothing')
  t.strictSame(ranges(areas.remove(middle)), inside)
  t.strictSame(ranges(areas), [
    [0, 5],
    [45, 50],
  ])
  t.strictSame(areas.within(middle), [])
  t.strictSame(areas.remove(middle), [])
})

t.test('a hole in the middle of a range leaves two', async (t) => {
  const areas = areasOf([0, 30])
  t.strictSame(ranges(areas.remove({ start: 10, length: 10 })), [[10, 20]])
  t.strictSame(ranges(areas), [
    [0, 10],
    [20, 30],
  ])
})

t.test('empty ranges change nothing', async (t) => {
  const areas = areasOf([0, 30], [40, 40])
  t.strictSame(areas.remove({ start: 10, length: 0 }), [])
  t.strictSame(areas.within({ start: 10, length: 0 }), [])
  t.strictSame(ranges(areas), [[0, 30]])
  t.notOk(areas.isEmpty)
})

t.test('changed while iterated, it goes on behind the area given last', async (t) => {
  const areas = areasOf([0, 10], [20, 30], [40, 50])
  const seen: Range[] = []
  for (const area of areas) {
    seen.push(area)
    areas.remove(area)
    if (area.start === 20) areas.add({ start: 0, length: 35 })
  }
  t.strictSame(ranges(seen), [
    [0, 10],
    [20, 30],
    [30, 35],
    [40, 50],
  ])
  t.strictSame(ranges(areas), [[0, 30]])
})

t.test('a million ranges added in rising order take no quadratic time', async (t) => {
  const areas = new RangeSet()
  for (let i = 0; i < 1_000_000; i++) areas.add({ start: i * 131072, length: 65536 })
  t.equal(areas.bytes, 1_000_000 * 65536)
  const middle = { start: 500_000 * 131072 + 4096, length: 131072 }
  t.strictSame(areas.remove(middle), [
    { start: middle.start, length: 65536 - 4096 },
    { start: 500_001 * 131072, length: 4096 },
  ])
  let count = 0
  for (const _ of areas) count++
  t.equal(count, 1_000_000)
})
