import fc from 'fast-check'
import t from 'tap'
import type { StatusRuns } from '../../lib/extents/intersect.ts'
import {
  type AskStatus,
  type StatusWindow,
  sameRuns,
  statusAnswers,
  statusOfDirty,
} from '../../lib/nbd/block-status.ts'
import { mappingsOf } from '../../lib/source/nbd-mappings.ts'
import type { DirtyMapping } from '../../lib/source/source.ts'

const DISK = { path: 'disk', blockMin: 1 }

/** Flags of each byte of a disk, and how much of a context each answer tells. */
const disks = fc.record({
  allocation: fc.array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: 60 }),
  dirty: fc.infiniteStream(fc.integer({ min: 0, max: 1 })),
  told: fc.infiniteStream(fc.integer({ min: 1, max: 20 })),
})

/** An honest server, which tells as little, or of bytes as far behind the range, as it is told to. */
function runsOf(bytes: readonly number[], start: number, count: number): StatusRuns {
  const pairs: number[] = []
  for (let i = start; i < start + count; i++) {
    const flags = bytes[i] ?? 0
    if (pairs.length > 0 && pairs[pairs.length - 1] === flags) pairs[pairs.length - 2]++
    else pairs.push(1, flags)
  }
  return Float64Array.from(pairs)
}

/** One character per byte: clean or dirty (small or capital); data, zero or hole. */
function paint(kind: 'data' | 'zero' | 'hole', dirty: boolean): string {
  return dirty ? kind[0].toUpperCase() : kind[0]
}

function paintMappings(mappings: readonly DirtyMapping[]): string {
  let start = 0
  return mappings
    .map((mapping) => {
      t.equal(mapping.start, start)
      start += mapping.length
      if (mapping.kind === 'data') t.equal(mapping.offset, mapping.start)
      return paint(mapping.kind as 'data', mapping.dirty).repeat(mapping.length)
    })
    .join('')
}

/** What NBD says of flags: only ZERO (2) reads as zero, HOLE (1) alone says nothing. */
function expected(allocation: readonly number[], dirty: readonly number[]): string {
  const kinds = ['data', 'data', 'zero', 'hole'] as const
  return allocation.map((flags, i) => paint(kinds[flags], dirty[i] === 1)).join('')
}

async function collect(windows: AsyncIterable<StatusWindow>): Promise<DirtyMapping[]> {
  const mappings: DirtyMapping[] = []
  for await (const window of windows)
    for (const batch of mappingsOf(window, 0)) mappings.push(...batch)
  return mappings
}

t.test('uneven, short and overlong answers of two contexts', async (t) => {
  await fc.assert(
    fc.asyncProperty(disks, async ({ allocation, dirty: stream, told }) => {
      const size = allocation.length
      const dirty = [...stream.take(size)]
      const ask: AskStatus = async (start, length) => {
        t.ok(length > 0 && start + length <= size)
        return [allocation, dirty].map((bytes) => runsOf(bytes, start, told.next().value))
      }
      const mappings: DirtyMapping[] = []
      for await (const { start, end, contexts } of statusAnswers(DISK, ask, 0, size)) {
        const window = { start, end, allocation: contexts[0], dirty: contexts[1] }
        for (const batch of mappingsOf(window, 0)) mappings.push(...batch)
      }
      t.equal(paintMappings(mappings), expected(allocation, dirty))
    }),
  )
})

t.test('allocation is asked for inside what is dirty, and nowhere else', async (t) => {
  await fc.assert(
    fc.asyncProperty(disks, async ({ allocation, dirty: stream, told }) => {
      const size = allocation.length
      const dirty = [...stream.take(size)]
      const askBitmap: AskStatus = async (start) => [runsOf(dirty, start, told.next().value)]
      const askAllocation: AskStatus = async (start, length) => {
        t.notOk(
          dirty.slice(start, start + length).includes(0),
          'a clean byte cannot be asked about',
        )
        return [runsOf(allocation, start, told.next().value)]
      }
      const mappings = await collect(statusOfDirty(DISK, askBitmap, askAllocation, 0, size))
      const known = allocation.map((flags, i) => (dirty[i] === 1 ? flags : 0))
      t.equal(paintMappings(mappings), expected(known, dirty))

      const without = await collect(statusOfDirty(DISK, askBitmap, undefined, 0, size))
      t.equal(paintMappings(without), expected(Array(size).fill(0), dirty), 'all is data')
    }),
  )
})

t.test('an answer that says nothing ends it', async (t) => {
  const empty = { code: 'IO', message: "disk: the server's answer about the bytes at 4 is empty" }
  for (const contexts of [
    [new Float64Array(0), sameRuns(8, 0)],
    [sameRuns(8, 0), new Float64Array(0)],
    [sameRuns(8, 0), sameRuns(0, 1)],
  ]) {
    const ask: AskStatus = async (start) => {
      return start === 0 ? [sameRuns(4, 0), sameRuns(5, 1)] : contexts
    }
    const drain = async () => {
      for await (const _ of statusAnswers(DISK, ask, 0, 8));
    }
    await t.rejects(drain(), empty)
  }
})

t.test('the next answer is asked for while the last is being used, and one only', async (t) => {
  const asked: number[] = []
  const ask: AskStatus = async (start) => {
    asked.push(start)
    if (start === 3) throw new Error('lost')
    return [sameRuns(1, 0)]
  }
  const answers = statusAnswers(DISK, ask, 0, 8)
  t.same((await answers.next()).value, { start: 0, end: 1, contexts: [[1, 0]] })
  t.same(asked, [0, 1])
  await answers.next()
  await answers.next()
  t.same(asked, [0, 1, 2, 3])
  // Whoever leaves now never hears of the failure, nor does the process.
  await answers.return(undefined)
  await new Promise((resolve) => setImmediate(resolve))
  t.same(asked, [0, 1, 2, 3])
})

t.test('steps and batches are bounded', async (t) => {
  const size = 2.5 * 2 ** 40
  const asked: number[] = []
  const ask: AskStatus = async (start, length) => {
    asked.push(start, length)
    return [sameRuns(length, 0)]
  }
  for await (const { end } of statusAnswers(DISK, ask, 0, size)) t.ok(end <= size)
  t.same(asked, [0, 2 ** 40, 2 ** 40, 2 ** 40, 2 ** 41, 2 ** 39])

  const dirty = new Float64Array(200_000)
  for (let i = 0; i < dirty.length; i += 2) dirty.set([512, (i / 2) % 2], i)
  const window = { start: 0, end: 512e5, allocation: sameRuns(512e5, 0), dirty }
  const lengths = [...mappingsOf(window, 0)].map((batch) => batch.length)
  t.equal(Math.max(...lengths), 4096)
  t.equal(
    lengths.reduce((sum, n) => sum + n),
    100_000,
  )
})

t.test('what is asked keeps to the blocks of the server, whose answers may not', async (t) => {
  const asked: number[] = []
  const ask: AskStatus = async (start, length) => {
    asked.push(start, length)
    return [sameRuns(11, 0)]
  }
  const ends: number[] = []
  const disk = { path: 'disk', blockMin: 4 }
  for await (const { end } of statusAnswers(disk, ask, 0, 30)) ends.push(end)
  t.same(ends, [8, 16, 24, 30])
  t.same(asked, [0, 30, 8, 22, 16, 14, 24, 6])
})
