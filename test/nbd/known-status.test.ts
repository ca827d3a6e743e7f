import fc from 'fast-check'
import t from 'tap'
import type { StatusWindow } from '../../lib/nbd/block-status.ts'
import { KnownStatus } from '../../lib/nbd/known-status.ts'

type Run = [length: number, allocation: number, dirty: number]

/** Runs, neighbours of equal flags joined. */
function joined(runs: readonly Run[]): Run[] {
  const out: Run[] = []
  for (const [length, allocation, dirty] of runs) {
    const last = out[out.length - 1]
    if (last && last[1] === allocation && last[2] === dirty) last[0] += length
    else out.push([length, allocation, dirty])
  }
  return out
}

function windowOf(start: number, runs: readonly Run[]): StatusWindow {
  const allocation = Float64Array.from(runs.flatMap(([length, flags]) => [length, flags]))
  const dirty = Float64Array.from(runs.flatMap(([length, , flags]) => [length, flags]))
  const end = start + runs.reduce((sum, [length]) => sum + length, 0)
  return { start, end, allocation, dirty }
}

function runsOf(windows: Iterable<StatusWindow>): Run[] {
  const runs: Run[] = []
  let at = 0
  for (const { start, end, allocation, dirty } of windows) {
    t.equal(start, at)
    for (let i = 0; i < allocation.length; i += 2) {
      t.equal(dirty[i], allocation[i])
      runs.push([allocation[i], allocation[i + 1], dirty[i + 1]])
      at += allocation[i]
    }
    t.equal(end, at)
  }
  return runs
}

const lengths = fc.oneof(fc.integer({ min: 1, max: 2 ** 20 }), fc.constant(2 ** 48 + 4096))
const runs = fc.tuple(lengths, fc.integer({ min: 0, max: 3 }), fc.integer({ min: 0, max: 1 }))

t.test('known status is what was stored, joined', async () => {
  fc.assert(
    fc.property(
      fc.array(fc.array(runs, { minLength: 1, maxLength: 6 }), { maxLength: 4 }),
      (windows) => {
        const known = new KnownStatus('disk')
        let start = 0
        for (const window of windows) {
          const one = windowOf(start, window)
          known.add(one)
          start = one.end
        }
        t.strictSame(joined(runsOf(known.windows())), joined(windows.flat()))
        t.strictSame(joined(runsOf(known.windows())), joined(windows.flat()), 'again')
      },
    ),
    { numRuns: 50 },
  )
})

t.test('any number of equal known runs is one', async (t) => {
  const known = new KnownStatus('disk', 1)
  for (let i = 0; i < 10_000; i++) known.add(windowOf(i * 512, [[512, 0, 0]]))
  t.strictSame(runsOf(known.windows()), [[10_000 * 512, 0, 0]])
})

t.test('more runs than it keeps are refused, with the way out', async (t) => {
  const known = new KnownStatus('disk', 100)
  const add = () => {
    for (let i = 0; i < 102; i++) known.add(windowOf(i * 512, [[512, (i % 2) * 3, 0]]))
  }
  t.throws(add, { code: 'UNSUPPORTED', why: /more than 100 runs.*--shared/ })
})
