import fc from 'fast-check'
import t from 'tap'
import {
  BadList,
  type Context,
  ExtentParser,
  type ListedExtent,
} from '../../../lib/imageio/client/extent-parser.ts'

/** All that a list has, received in pieces of some bytes. */
function parse(text: string, size: number, context: Context, pieces: readonly number[] = []) {
  const parser = new ExtentParser(context, size)
  const all: ListedExtent[] = []
  const body = Buffer.from(text)
  let at = 0
  for (let i = 0; at < body.length; i++) {
    const piece = pieces.length > 0 ? pieces[i % pieces.length] : body.length
    all.push(...parser.add(body.subarray(at, at + piece)))
    at += piece
  }
  parser.finish()
  return all
}

function faultOf(work: () => unknown): unknown {
  try {
    return work()
  } catch (error) {
    return error
  }
}

t.test('a list means the same however it is cut into pieces', async (t) => {
  const extent = fc.record({
    length: fc.integer({ min: 1, max: 2 ** 40 }),
    zero: fc.option(fc.boolean(), { nil: undefined }),
    hole: fc.option(fc.boolean(), { nil: undefined }),
    dirty: fc.boolean(),
  })
  const pieces = fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 5 })
  const blank = fc.constantFrom('', ' ', '\n', ' \r\n\t')
  fc.assert(
    fc.property(fc.array(extent, { maxLength: 40 }), pieces, blank, (list, pieces, blank) => {
      let start = 0
      const extents = list.map((one) => {
        const at = start
        start += one.length
        return { start: at, ...one }
      })
      const text = `${blank}[${extents.map((e) => blank + JSON.stringify(e, null, blank) + blank)}]\n`
      const parsed = parse(text, start, 'dirty', pieces)
      t.strictSame(
        parsed,
        extents.map(({ zero = false, hole = false, ...e }) => ({ ...e, zero, hole })),
        { diagnostic: false },
      )
    }),
    { numRuns: 100 },
  )
})

t.test('keys that are absent, null or new', async (t) => {
  const text = '[{"start":0,"length":512},{"length":512,"start":512,"zero":null,"new":"x"}]'
  const plain = { length: 512, zero: false, hole: false, dirty: false }
  t.strictSame(parse(text, 1024, 'zero'), [
    { start: 0, ...plain },
    { start: 512, ...plain },
  ])
  t.strictSame(parse('[]\n', 0, 'zero'), [])
})

t.test('what is not the list of a disk of 1024 bytes', async (t) => {
  const half = '{"start":0,"length":512,"zero":false}'
  const whole = '{"start":0,"length":1024,"zero":false}'
  const wrong: [string, RegExp][] = [
    ['', /cut off/],
    ['[]', /end at 0, the disk at 1024/],
    ['{}', /not a list/],
    ['nonsense', /cut off/],
    [`[${half}]`, /end at 512/],
    [`[${half}`, /cut off after offset 512/],
    [`[${whole}`, /cut off/],
    [`[${whole},`, /cut off/],
    [`[${whole},]`, /cut off/],
    [`[${whole}]]`, /cut off/],
    [`[${whole}]${whole}`, /not a list/],
    [`[${whole}][${whole}]`, /not a list/],
    [`[,${whole}]`, /not a list/],
    [`[${half}${half}]`, /not a list/],
    [`[${half},${half}]`, /does not start at 512/],
    ['[1,{"start":0}]', /not a list/],
    ['[{"start":0,"length":0}]', /no valid length/],
    ['[{"start":0,"length":-1}]', /no valid length/],
    ['[{"start":0,"length":0.5}]', /no valid length/],
    ['[{"start":0,"length":1e400}]', /no valid length/],
    ['[{"start":0,"length":"1024"}]', /no valid length/],
    ['[{"start":0,"length":2048}]', /goes beyond/],
    ['[{"start":0,"length":1024,"zero":"no"}]', /neither true nor false/],
    ['[{"start":0,"length":1024,"zero":0}]', /neither true nor false/],
    [`[${' '.repeat(5000)}`, /no extent ends in/],
    [`[{"start":0,"x":"${'y'.repeat(5000)}`, /no extent ends in/],
    [`[${whole}]${' '.repeat(5000)}`, /no extent ends in/],
  ]
  for (const [text, why] of wrong) {
    t.throws(() => parse(text, 1024, 'zero'), why, text.slice(0, 60))
    t.ok(faultOf(() => parse(text, 1024, 'zero', [7])) instanceof BadList)
  }
  t.throws(() => parse(`[${whole}]`, 1024, 'dirty'), /does not say whether it is dirty/)
  const crumbs = Array.from({ length: 2000 }, (_, start) => `{"start":${start},"length":1}`)
  t.throws(() => parse(`[${crumbs}]`, 2000, 'zero'), /absurd/)
})
