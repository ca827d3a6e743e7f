import fc from 'fast-check'
import t from 'tap'
import type { Range } from '../../lib/extents/range-set.ts'
import { PlanAhead } from '../../lib/plan/ahead.ts'
import { COLUMNS, ROW } from '../../lib/plan/rows.ts'

const STASH = 1
const GRANULE = 4
const SIZE = 96

/** Rows in short: each letter is a byte. d data, z zero, `-` skipped. */
function rowsOf(text: string, from = 0): Float64Array {
  const rows: number[] = []
  let start = from
  for (const [run] of text.matchAll(/(.)\1*/g)) {
    const kind = { d: ROW.data, z: ROW.zero, '-': ROW.skip }[run[0] as 'd' | 'z' | '-']
    rows.push(kind, start, run.length, 0, kind === ROW.data ? start : 0, 0, 0, 0)
    start += run.length
  }
  return new Float64Array(rows)
}

/** What becomes of each byte: as in rowsOf, and s where it is read from the stash. */
function textOf(rows: Float64Array, start: number): string {
  let text = ''
  for (let at = 0; at < rows.length; at += COLUMNS) {
    const [kind, from, length, store, offset] = rows.subarray(at, at + COLUMNS)
    if (from !== start + text.length)
      throw new Error(`a row at ${from}, not ${start + text.length}`)
    if (length <= 0) throw new Error('an empty row')
    if (kind === ROW.data && offset !== from) throw new Error(`bytes of ${offset} at ${from}`)
    const letter = kind === ROW.data ? (store === STASH ? 's' : 'd') : kind === ROW.zero ? 'z' : '-'
    text += letter.repeat(length)
  }
  return text
}

/** Ranges of a text that are not blank. */
function rangesOf(text: string): Range[] {
  return [...text.matchAll(/\S+/g)].map(({ 0: run, index }) => ({
    start: index,
    length: run.length,
  }))
}

function ahead(text: string): PlanAhead {
  const plan = new PlanAhead()
  plan.append(rowsOf(text))
  return plan
}

function found(text: string, wanted: string, most = 1000, taken = 0): string {
  const plan = ahead(text)
  if (taken > 0) plan.take(taken)
  const out = new Array(text.length).fill(' ')
  for (const { start, length } of plan.findReads(rangesOf(wanted), GRANULE, most)) {
    out.fill('x', start, start + length)
  }
  return out.join('').trimEnd()
}

t.test('whole granules with something wanted and something to be read are found', async (t) => {
  t.equal(found('dddddddddddd', '     x      '), '    xxxx')
  t.equal(found('dddddddddddd', '   xx       '), 'xxxxxxxx')
  t.equal(found('zzzzzzzddddd', '  xxx       '), '    xxxx', 'a granule that is read in part')
  t.equal(found('zzzzdddd----', 'xxxxxxxxxxxx'), '    xxxx')
  t.equal(found('dddddddddddd', '            '), '')
  t.equal(found('dddddddddd', 'xxxxxxxxxxxx'), 'xxxxxxxx', 'not the partial one at the end')
  t.equal(found('dddddddddddd', 'xxxxxxxxxxxx', 5), 'xxxxxxxx', 'no more than is asked for')
  t.equal(found('dddddddddddd', 'xxxxxxxxxxxx', 0), '')
  t.equal(found('dddddddddddd', 'xxxxxxxxxxxx', 99, 1), '    xxxxxxxx', 'not what was handed out')
})

t.test('what is in the stash is not found again', async (t) => {
  const plan = ahead('dddddddddddd')
  const [range] = plan.findReads([{ start: 4, length: 1 }], GRANULE, 99)
  plan.redirect([range], STASH)
  const again = plan.findReads([{ start: 0, length: 12 }], GRANULE, 99)
  t.strictSame(again, [
    { start: 0, length: 4 },
    { start: 8, length: 4 },
  ])
  t.equal(textOf(plan.take(99), 0), 'ddddssssdddd')
})

t.test('rows are taken by the bytes that they read', async (t) => {
  const plan = ahead('zzddddddzz--dd')
  t.equal(textOf(plan.take(3), 0), 'zzddd')
  t.equal(plan.start, 5)
  t.equal(textOf(plan.take(4), 5), 'dddzz--d')
  t.equal(textOf(plan.take(4), 13), 'd')
  t.equal(plan.count, 0)
  t.equal(plan.start, 14)
  plan.append(rowsOf('zz', 14))
  t.equal(textOf(plan.take(1), 14), 'zz', 'also if they read nothing')
})

t.test('a compressed cluster is not cut', async (t) => {
  const plan = new PlanAhead()
  const cluster = [ROW.deflate, 0, 64, 0, 4096, 512, 64, 0]
  plan.append(new Float64Array([...cluster, ROW.data, 64, 8, 0, 64, 0, 0, 0]))
  t.strictSame([...plan.take(10)], cluster)
  t.equal(plan.start, 64)
})

const letters = fc.array(fc.constantFrom('d', 'd', 'z', '-'), { minLength: SIZE, maxLength: SIZE })
const step = fc.record({
  known: fc.nat(30),
  taken: fc.nat(20),
  wanted: fc.array(fc.boolean(), { minLength: SIZE, maxLength: SIZE }),
  most: fc.nat(40),
})

t.test('whatever is taken first and handed out, every byte is read once, where it is', async () => {
  await fc.assert(
    fc.property(letters, fc.array(step, { maxLength: 12 }), (plan, steps) => {
      const rows = new PlanAhead()
      const expected: string[] = [...plan]
      let known = 0
      let out = ''
      const learn = (to: number) => {
        rows.append(rowsOf(plan.slice(known, to).join(''), known))
        known = to
      }
      for (const { known: more, taken, wanted, most } of steps) {
        learn(Math.min(SIZE, known + more))
        const marks = wanted.map((is) => (is ? 'x' : ' ')).join('')
        const areas = rows.findReads(rangesOf(marks), GRANULE, most)
        for (const { start, length } of areas) {
          if (start < out.length || start + length > known) throw new Error('not ahead')
          if (start % GRANULE !== 0 || length % GRANULE !== 0) throw new Error('not whole')
          for (let at = start; at < start + length; at++) {
            if (expected[at] === 's') throw new Error('twice')
            if (expected[at] === 'd') expected[at] = 's'
          }
        }
        rows.redirect(areas, STASH)
        if (taken > 0 && rows.count > 0) out += textOf(rows.take(taken), out.length)
      }
      learn(SIZE)
      while (rows.count > 0) out += textOf(rows.take(7), out.length)
      if (out !== expected.join('')) throw new Error(`${out} is not ${expected.join('')}`)
    }),
  )
})
