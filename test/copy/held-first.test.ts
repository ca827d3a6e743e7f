import { closeSync, openSync, readdirSync, readFileSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { DiscardAfterCopy } from '../../lib/copy/discard.ts'
import { HeldFirst } from '../../lib/copy/held-first.ts'
import type { HeldRanges } from '../../lib/copy/held-ranges.ts'
import { copyDisk } from '../../lib/copy/job.ts'
import type { JobOptions } from '../../lib/copy/spec.ts'
import { Stash } from '../../lib/copy/stash.ts'
import { locate } from '../../lib/copy/target/location.ts'
import type { Range } from '../../lib/extents/range-set.ts'
import { type CustomExtent, openCustom } from '../../lib/source/custom-source.ts'
import { firstDifference, noise } from '../support/disks.ts'
import { effort } from '../support/effort.ts'

const KIB = 1024
const MIB = 2 ** 20
const GRANULE = 64 * KIB
/** A round for whatever is held, whenever the copy asks. */
const EAGER = { min: 1, max: 2 * MIB, pauseMs: 0 }
const ALL: readonly Range[] = [{ start: 0, length: 2 ** 40 }]

interface Disk {
  bytes: Buffer
  extents: readonly CustomExtent[]
}

/** What a test may meddle with. */
interface Meddling {
  held: HeldRanges
  /** Before each read. */
  onRead?: (start: number, signal: AbortSignal) => Promise<void>
  /** In place of discarding. */
  discard?: () => Promise<void>
  stash?: (stash: Stash) => Stash
  options?: Partial<JobOptions>
}

/** A disk whose bytes are gone once they are discarded. */
async function copyFirst(t: Test, disk: Disk, meddling: Meddling) {
  const { bytes, extents } = disk
  const left = Buffer.from(bytes)
  const reads: Range[] = []
  const source = openCustom({
    name: 'a disk that forgets',
    size: bytes.length,
    extents: () => extents,
    async read(start, length, signal) {
      await meddling.onRead?.(start, signal)
      reads.push({ start, length })
      return Buffer.from(left.subarray(start, start + length))
    },
    async discard(start, length) {
      await meddling.discard?.()
      left.fill(0xdd, start, start + length)
    },
  })
  const directory = t.testdir({ to: {} })
  const path = join(directory, 'to', 'copy.raw')
  const location = await locate(path)
  const target = await open(path, 'w+')
  const discarding = new DiscardAfterCopy(source.discarding(GRANULE), GRANULE, bytes.length)
  const made = await Stash.beside(location, bytes.length - (bytes.length % GRANULE))
  const stash = meddling.stash?.(made) ?? made
  const options: JobOptions = {
    format: { kind: 'raw' },
    ...{ engine: 'auto', direct: 'auto', requests: 4, retries: 0 },
    ...meddling.options,
  }
  const first = new HeldFirst(source, meddling.held, stash, discarding, options, EAGER)
  try {
    const store = { kind: 'file', fd: target.fd } as const
    await copyDisk(source, { path, store }, options, { discarding, first })
    await discarding.finish()
    t.strictSame(readdirSync(join(directory, 'to')), ['copy.raw'])
    return { first, reads, discarding, copied: readFileSync(path), left }
  } finally {
    await made.discard()
    await target.close()
    await location.directory.close()
  }
}

/** A disk of noise, but for its zeroes. */
function diskOf(size: number, zeroes: readonly Range[] = []): Disk {
  const bytes = noise(size, size)
  const extents: CustomExtent[] = []
  let end = 0
  const put = (to: number, zero: boolean) => {
    if (to > end) extents.push({ start: end, length: to - end, zero })
    end = Math.max(end, to)
  }
  for (const { start, length } of zeroes) {
    put(start, false)
    put(start + length, true)
    bytes.fill(0, start, start + length)
  }
  put(size, false)
  return { bytes, extents }
}

t.test('what is held is read first, and the copy is that of the whole disk', async (t) => {
  const disk = diskOf(16 * MIB)
  const held = [{ start: 9 * MIB, length: 3 * MIB }]
  const { copied, reads, first } = await copyFirst(t, disk, { held: async () => held })
  t.equal(firstDifference(copied, disk.bytes), undefined)
  t.match(first.taken, { bytes: 3 * MIB, rounds: 2 })
  t.equal(first.note, undefined)
  const early = reads.slice(0, 2)
  t.ok(
    early.every(({ start }) => start >= 9 * MIB && start < 12 * MIB),
    'before anything else',
  )
  const inTurn = reads.filter(({ start }) => start >= 9 * MIB && start < 12 * MIB)
  const bytes = inTurn.reduce((sum, { length }) => sum + length, 0)
  t.equal(bytes, 3 * MIB, 'and not again')
})

t.test('any disk, whatever is held when: nothing is read once it is discarded', async (t) => {
  const SIZE = 6 * MIB + 1536
  const range = fc
    .tuple(fc.nat(SIZE), fc.nat(MIB))
    .map(([start, length]) => ({ start, length: length + 1 }))
  const answer = fc.array(range, { maxLength: 6 }).map((ranges) => {
    return ranges.sort((a, b) => a.start - b.start)
  })
  const zeroes = fc.array(
    fc.tuple(fc.nat(SIZE / 512 - 1), fc.nat(2000)).map(([start, length]) => ({
      start: start * 512,
      length: Math.min((length + 1) * 512, SIZE - start * 512),
    })),
    { maxLength: 8 },
  )
  await fc.assert(
    fc.asyncProperty(zeroes, fc.array(answer, { maxLength: 8 }), async (zeroes, answers) => {
      const disk = diskOf(SIZE, inOrder(zeroes))
      const held = async () => answers.shift() ?? ALL
      const { copied, first, left } = await copyFirst(t, disk, { held })
      if (first.note !== undefined) throw new Error(first.note)
      const at = firstDifference(copied, disk.bytes)
      if (at !== undefined) throw new Error(`byte ${at} differs`)
      if (left.some((byte) => byte !== 0xdd)) throw new Error('not all was discarded')
    }),
    { numRuns: effort(12, 60) },
  )
})

/** Without those that begin in another. */
function inOrder(ranges: readonly Range[]): Range[] {
  const sorted = [...ranges].sort((a, b) => a.start - b.start)
  return sorted.filter(({ start }, i) => {
    return sorted.slice(0, i).every((other) => other.start + other.length <= start)
  })
}

const TROUBLE: [string, Partial<Meddling>, RegExp][] = [
  [
    'nobody knows what is held',
    { held: () => Promise.reject(new Error('no such file')) },
    /^what the point in time holds was not all copied first: a disk that forgets: no such file$/,
  ],
  [
    'the stash cannot be written',
    { stash: (stash) => unwritable(stash) },
    /^what the point in time holds was not all copied first: the temporary file beside .*copy\.raw: /,
  ],
]

for (const [name, meddling, note] of TROUBLE) {
  t.test(`${name}: the copy goes on in turn, and says so`, async (t) => {
    const disk = diskOf(4 * MIB)
    const { copied, first } = await copyFirst(t, disk, { held: async () => ALL, ...meddling })
    t.match(first.note, note)
    t.equal(first.taken.bytes, 0)
    t.equal(firstDifference(copied, disk.bytes), undefined)
  })
}

/** One that is written to elsewhere, where there is no room. */
function unwritable(stash: Stash): Stash {
  const full = openSync('/dev/full', 'r+')
  let asked = 0
  return {
    get file() {
      return asked++ === 0 ? stash.file : { ...stash.file, handle: { fd: full } }
    },
    room: () => stash.room(),
    free: async () => closeSync(full),
  } as unknown as Stash
}

t.test('a stash without room takes nothing', async (t) => {
  const disk = diskOf(4 * MIB)
  const stash = (stash: Stash) =>
    ({ file: stash.file, room: async () => 0, free: async () => {} }) as unknown as Stash
  const { copied, first } = await copyFirst(t, disk, { held: async () => ALL, stash })
  t.equal(first.taken.bytes, 0)
  t.equal(first.note, undefined)
  t.equal(firstDifference(copied, disk.bytes), undefined)
})

t.test('where the source does not discard nothing more is copied first', async (t) => {
  const disk = diskOf(16 * MIB)
  const discard = () => Promise.reject(new Error('not now'))
  const { copied, first, discarding } = await copyFirst(t, disk, { held: async () => ALL, discard })
  t.match(discarding.failure, { message: 'not now' })
  t.ok(first.taken.rounds <= 2)
  t.equal(firstDifference(copied, disk.bytes), undefined)
})

t.test('a read that fails out of turn may succeed in turn', async (t) => {
  const disk = diskOf(4 * MIB)
  let failed = false
  const { copied, first } = await copyFirst(t, disk, {
    held: async () => [{ start: 2 * MIB, length: MIB }],
    async onRead(start) {
      if (start < 2 * MIB || failed) return
      failed = true
      throw new Error('this once')
    },
  })
  t.match(first.note, /a disk that forgets: read at 2097152/)
  t.equal(firstDifference(copied, disk.bytes), undefined)
})

t.test('a read that fails out of turn is tried again as any other', async (t) => {
  const disk = diskOf(4 * MIB)
  const failed = new Set<number>()
  const { copied, first } = await copyFirst(t, disk, {
    held: async () => ALL,
    async onRead(start) {
      if (failed.has(start)) return
      failed.add(start)
      throw new Error('each once')
    },
    options: { retries: 1 },
  })
  t.equal(first.note, undefined)
  t.equal(first.taken.bytes, 4 * MIB)
  t.equal(firstDifference(copied, disk.bytes), undefined)
})

t.test('an abort ends what is copied first', async (t) => {
  const aborting = new AbortController()
  const copy = copyFirst(t, diskOf(4 * MIB), {
    held: async () => ALL,
    onRead: (_, signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason))
        aborting.abort()
      }),
    options: { signal: aborting.signal },
  })
  await t.rejects(copy, { code: 'ABORTED' })
})

t.test('a copy that fails does not wait for what is copied first', async (t) => {
  let questions = 0
  const copy = copyFirst(t, diskOf(8 * MIB), {
    // Only once the copy has begun in turn.
    held: async () => (++questions < 3 ? [] : [{ start: 6 * MIB, length: MIB }]),
    async onRead(start, signal) {
      if (start < 6 * MIB) throw new Error('broken')
      await new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason))
      })
    },
  })
  await t.rejects(copy, { code: 'IO', why: /^read at \d+: broken$/ })
})

t.test('a stash takes half of the room that there is, and gives it back', async (t) => {
  const location = await locate(join(t.testdir(), 'target'))
  const stash = await Stash.beside(location, 64 * MIB)
  t.teardown(() => location.directory.close())
  t.teardown(() => stash.discard())
  t.strictSame(readdirSync(t.testdirName), [], 'it has no name')
  const { handle } = stash.file
  const allocated = async () => (await handle.stat()).blocks * 512
  await handle.write(noise(8 * MIB), 0, 8 * MIB, 16 * MIB)
  await handle.sync()
  t.equal(await allocated(), 8 * MIB)
  t.ok((await stash.room()) > 0)
  await stash.free([{ start: 16 * MIB, length: 6 * MIB }])
  t.equal(await allocated(), 2 * MIB)
  t.equal((await handle.stat()).size, 64 * MIB)
})
