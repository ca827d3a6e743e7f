import t from 'tap'
import type { Range } from '../../lib/extents/range-set.ts'
import { readHeldZeroes } from '../../lib/plan/held-zeroes.ts'
import { COLUMNS, ROW } from '../../lib/plan/rows.ts'

const KINDS = { d: ROW.data, z: ROW.zero, '-': ROW.skip }

/** Rows and held ranges in short: each letter is a byte. */
function read(plan: string, held: string, zero: 'z' | '-', size = 100): string {
  const rows: number[] = []
  for (const { 0: run, index } of plan.matchAll(/(.)\1*/g)) {
    const kind = KINDS[run[0] as keyof typeof KINDS]
    rows.push(kind, index, run.length, 0, kind === ROW.data ? index : 0, 0, 0, 0)
  }
  const ranges: Range[] = [...held.matchAll(/\S+/g)].map(({ 0: run, index }) => ({
    start: index,
    length: run.length,
  }))
  const out = readHeldZeroes(new Float64Array(rows), ranges, KINDS[zero], 4, size)
  let text = ''
  for (let at = 0; at < out.length; at += COLUMNS) {
    const [kind, start, length, store, offset] = out.subarray(at, at + COLUMNS)
    if (start !== text.length) throw new Error(`a row at ${start}`)
    if (kind === ROW.data && (offset !== start || store !== 0)) throw new Error('elsewhere')
    text += Object.entries(KINDS)
      .find(([, is]) => is === kind)![0]
      .repeat(length)
  }
  return text
}

t.test('zeroes are read where something of them is held, in whole granules', async (t) => {
  t.equal(read('zzzzzzzzzzzz', '     x      ', 'z'), 'zzzzddddzzzz')
  t.equal(read('zzzzzzzzzzzz', '   xx       ', 'z'), 'ddddddddzzzz')
  t.equal(read('zzzzzzzzzzzz', 'x         x ', 'z'), 'ddddzzzzdddd')
  t.equal(read('ddzzzzzzzz--', 'xxxxxxxxxxxx', 'z'), 'dddddddddd--', 'what is clean is not')
  t.equal(read('dd----------', '  x    x    ', '-'), 'dddddddd----')
  t.equal(read('zz--zz--zz--', '     x      ', 'z'), 'zz--dd--zz--')
  t.equal(read('zzzzzzzzzzzz', '            ', 'z'), 'zzzzzzzzzzzz')
  t.equal(read('zzzzzzzzzz', '         x', 'z', 9), 'zzzzzzzzdz', 'not past the end of the store')
})
