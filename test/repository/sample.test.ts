/** Which images are read by a sample: everything has its turn, whatever comes and goes. */
import fc from 'fast-check'
import t from 'tap'
import { type Candidate, chooseSample } from '../../lib/repository/verify/sample.ts'
import { effort } from '../support/effort.ts'

const DAY = 86_400_000
const day = (n: number) => new Date(Date.UTC(2026, 0, 1) + n * DAY)
const iso = (n: number) => day(n).toISOString()

t.test('those that wait longest are first, until there is enough', async (t) => {
  const read = { name: 'read', bytes: 10, made: iso(0), verified: { time: iso(9), same: true } }
  const bad = { name: 'bad', bytes: 10, made: iso(0), verified: { time: iso(8), same: false } }
  const never = { name: 'never', bytes: 10, made: iso(1) }
  const future = { name: 'future', bytes: 10, made: iso(400) }
  const all = [read, bad, never, future]
  const names = (percent: number) =>
    [...chooseSample(all, percent, day(10))].map(({ name }) => name)
  t.strictSame(names(100), ['future', 'never', 'bad', 'read'])
  t.strictSame(names(50), ['future', 'never'])
  t.strictSame(names(50.1), ['future', 'never', 'bad'])
  t.strictSame(names(0.001), ['future'], 'one at least')
  t.equal(chooseSample([], 5, day(0)).size, 0)
})

t.test('5 % a day reads every image within three weeks, however many come', async () => {
  // Bytes of the images that are made on each day; how long they are kept.
  const days = fc.array(fc.array(fc.integer({ min: 1, max: 1000 }), { maxLength: 5 }), {
    minLength: 30,
    maxLength: 90,
  })
  fc.assert(
    fc.property(days, fc.integer({ min: 5, max: 200 }), (made, kept) => {
      let images: (Candidate & { born: number })[] = []
      for (const [today, sizes] of made.entries()) {
        // Never less on the whole: what is pruned has become part of others.
        images = images.filter(({ born }) => born === 0 || today - born < kept)
        images.push(...sizes.map((bytes) => ({ bytes, made: iso(today), born: today })))
        for (const image of chooseSample(images, 5, day(today + 0.5))) {
          image.verified = { time: iso(today + 0.5), same: true }
        }
        for (const { made, verified } of images) {
          const since = Date.parse(verified?.time ?? made)
          if (day(today + 0.5).getTime() - since > 21 * DAY) return false
        }
      }
      return true
    }),
    { numRuns: effort(5, 2000) },
  )
})
