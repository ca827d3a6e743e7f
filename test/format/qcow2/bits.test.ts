import fc from 'fast-check'
import t from 'tap'
import { BitRuns, type DirtyRun } from '../../../lib/format/qcow2/bits.ts'

/** Bits as they come: stored bytes, or so many bytes of one kind. */
type Part = Uint8Array | { ones: boolean; bytes: number }

function runsOf(parts: readonly Part[], granularity: number, size: number): DirtyRun[] {
  const bits = new BitRuns(granularity, size)
  const runs: DirtyRun[] = []
  for (const part of parts) {
    if (part instanceof Uint8Array) bits.addBits(part)
    else bits.addSame(part.ones, part.bytes * 8)
    runs.push(...bits.take())
  }
  return [...runs, ...bits.end()]
}

t.test('the lowest bit of each byte comes first', async (t) => {
  t.strictSame(runsOf([Uint8Array.of(0b0000_0110, 0x80)], 512, 16 * 512), [
    { start: 0, length: 512, dirty: false },
    { start: 512, length: 1024, dirty: true },
    { start: 1536, length: 12 * 512, dirty: false },
    { start: 15 * 512, length: 512, dirty: true },
  ])
})

t.test('bits past the end of the disk mean nothing, and the last granule is cut', async (t) => {
  t.strictSame(runsOf([Uint8Array.of(0xff, 0xff)], 65536, 3 * 65536 - 512), [
    { start: 0, length: 3 * 65536 - 512, dirty: true },
  ])
  t.strictSame(runsOf([Uint8Array.of(0xfb), Uint8Array.of(0xff)], 65536, 3 * 65536 - 512), [
    { start: 0, length: 2 * 65536, dirty: true },
    { start: 2 * 65536, length: 65536 - 512, dirty: false },
  ])
  t.strictSame(runsOf([{ ones: true, bytes: 512 }, Uint8Array.of(0)], 512, 1024), [
    { start: 0, length: 1024, dirty: true },
  ])
})

t.test('a disk without bytes has no runs', async (t) => {
  t.strictSame(runsOf([], 512, 0), [])
})

t.test('runs say what each bit says, however the bits are handed over', async (t) => {
  const part = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 12 }),
    fc.record({ ones: fc.boolean(), bytes: fc.integer({ min: 1, max: 12 }) }),
    fc.constantFrom(new Uint8Array(9), new Uint8Array(9).fill(255)),
  )
  const property = fc.property(
    fc.array(part, { minLength: 1, maxLength: 8 }),
    fc.constantFrom(512, 65536, 2 ** 31),
    fc.nat(),
    (parts, granularity, seed) => {
      const bits = parts.flatMap((one) =>
        one instanceof Uint8Array
          ? [...one].flatMap((byte) => Array.from({ length: 8 }, (_, i) => (byte >> i) % 2 === 1))
          : Array.from({ length: one.bytes * 8 }, () => one.ones),
      )
      const size = (1 + (seed % (bits.length * (granularity / 512)))) * 512
      const runs = runsOf(parts, granularity, size)
      let at = 0
      for (const [i, { start, length, dirty }] of runs.entries()) {
        if (start !== at || length <= 0 || dirty === runs[i - 1]?.dirty) return false
        for (let bit = Math.floor(start / granularity); bit * granularity < start + length; bit++) {
          if (bits[bit] !== dirty) return false
        }
        at += length
      }
      return at === size
    },
  )
  t.doesNotThrow(() => fc.assert(property, { numRuns: 500 }))
})
