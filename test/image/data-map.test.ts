import fc from 'fast-check'
import t from 'tap'
import { type HostRun, windowOf } from '../../lib/image/data-map.ts'

t.test('any part of a window of runs is answered exactly', async (t) => {
  const lengths = fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1, maxLength: 20 })
  fc.assert(
    fc.property(lengths, fc.nat(50), fc.nat(), fc.nat(), (lengths, first, a, b) => {
      const runs: HostRun[] = []
      let start = first
      for (const [i, length] of lengths.entries()) {
        runs.push({ start, length, data: i % 2 === 0 })
        start += length
      }
      const window = windowOf(runs)
      t.same([window.start, window.end], [first, start])
      const x = first + (a % (start - first))
      const y = first + (b % (start - first))
      const [from, to] = [Math.min(x, y), Math.max(x, y)]
      const paint = (list: HostRun[]) =>
        list.map((r) => (r.data ? 'd' : '.').repeat(r.length)).join('')
      const part = window.between(from, to)
      t.equal(paint(part), paint(runs).slice(from - first, to - first))
      if (part.length > 0) t.equal(part[0].start, from)
    }),
  )
})
