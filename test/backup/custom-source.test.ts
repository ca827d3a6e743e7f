import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises'
import t from 'tap'
import {
  type CustomExtent,
  type CustomSource,
  fullBackup,
  incrementalBackup,
  openSource,
  restore,
} from '../../lib/index.ts'
import { randomNumbers } from '../support/changes.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { qemuImgCheck, qemuImgSame } from '../support/qemu.ts'

const MIB = 2 ** 20
const SIZE = 24 * MIB

/** A disk in memory: two stretches of noise, of which one has a hole that it does not tell of. */
function memoryDisk(changes: Partial<CustomSource> = {}) {
  const bytes = Buffer.alloc(SIZE)
  noise(9 * MIB).copy(bytes)
  noise(3 * MIB + 512).copy(bytes, 16 * MIB)
  bytes.fill(0, 4 * MIB, 5 * MIB)
  const extents: CustomExtent[] = [
    { start: 0, length: 9 * MIB, zero: false },
    { start: 9 * MIB, length: 7 * MIB, zero: true },
    { start: 16 * MIB, length: 4 * MIB, zero: false },
    { start: 20 * MIB, length: 4 * MIB, zero: true },
  ]
  const read: { start: number; length: number }[] = []
  const random = randomNumbers(SIZE)
  const custom: CustomSource = {
    name: 'a disk in memory',
    size: SIZE,
    extents: () => extents,
    async read(start, length) {
      read.push({ start, length })
      // Answers come in another order than they were asked for.
      for (let turns = random(50); turns > 0; turns--) await nextTurn()
      return bytes.subarray(start, start + length)
    },
    ...changes,
  }
  return { bytes, custom, read }
}

t.test('a full backup of a source of the program’s own', async (t) => {
  const directory = t.testdir()
  const target = join(directory, 'backup.qcow2')
  let closed = 0
  const { bytes, custom, read } = memoryDisk({ close: () => void closed++ })
  const result = await fullBackup(custom, target)
  t.match(result, { virtualSize: SIZE, dataBytes: 11 * MIB + 65536, unchangedBytes: 0 })
  const disk = makeRaw(join(directory, 'disk.raw'), SIZE, [{ at: 0, bytes }])
  t.equal(qemuImgCheck(target).status, 0)
  t.ok(qemuImgSame({ path: target, format: 'qcow2' }, { path: disk, format: 'raw' }))
  t.equal(closed, 1)
  t.notOk(
    read.some(({ start, length }) => start < 16 * MIB && start + length > 9 * MIB),
    'what is said to be zero is not read',
  )
  t.equal(Math.max(...read.map(({ length }) => length)), MIB)
})

t.test('an incremental backup, by what it says is dirty', async (t) => {
  const directory = t.testdir()
  const { bytes, custom } = memoryDisk()
  const backing = join(directory, 'full.qcow2')
  await fullBackup(custom, backing)
  noise(70_000).copy(bytes, 100_000)
  bytes.fill(0, 2 * MIB, 3 * MIB)
  const changed = memoryDisk({
    *extents() {
      yield { start: 0, length: 99_840, zero: false, dirty: false }
      yield { start: 99_840, length: 70_656, zero: false, dirty: true }
      yield { start: 170_496, length: 2 * MIB - 170_496, zero: false, dirty: false }
      yield { start: 2 * MIB, length: MIB, zero: true, dirty: true }
      yield { start: 3 * MIB, length: SIZE - 3 * MIB, zero: false, dirty: false }
    },
    read: custom.read,
  })
  const target = join(directory, 'incremental.qcow2')
  const result = await incrementalBackup(changed.custom, target, { backing })
  t.match(result, { dataBytes: 2 * 65536, zeroBytes: MIB })
  const restored = join(directory, 'restored.raw')
  await restore(target, restored)
  t.ok(readFileSync(restored).equals(bytes))

  await t.rejects(incrementalBackup(custom, target, { backing, force: true }), {
    code: 'USAGE',
    message:
      'a disk in memory: extents(): the extent at 0 does not say whether it is dirty: undefined',
  })
})

t.test('what does not say true or false of an extent is refused, not taken for one', async (t) => {
  const directory = t.testdir()
  const backing = join(directory, 'full.qcow2')
  await fullBackup(memoryDisk().custom, backing)
  const target = join(directory, 'target.qcow2')
  for (const wrong of ['false', 0, 1, null, {}]) {
    const of = (extent: object) =>
      memoryDisk({ extents: () => [{ start: 0, length: SIZE, ...extent } as CustomExtent] }).custom
    await t.rejects(fullBackup(of({ zero: wrong }), target), { code: 'USAGE', message: /zero: / })
    const marked = of({ zero: false, dirty: wrong })
    const incremental = incrementalBackup(marked, target, { backing })
    await t.rejects(incremental, { code: 'USAGE', message: /dirty: / })
  }
})

t.test('a source is closed once, also where the copy cannot begin', async (t) => {
  const directory = t.testdir()
  for (const [name, code] of [
    ['none/target.qcow2', 'IO'],
    ['target.qcow2', undefined],
  ]) {
    let closed = 0
    const { custom } = memoryDisk({ close: () => void closed++ })
    const ended = await fullBackup(custom, join(directory, name!)).catch((error) => error)
    t.equal(ended.code, code)
    t.equal(closed, 1)
  }
})

t.test('reads that fail are asked again, a bounded number of times', async (t) => {
  const target = join(t.testdir(), 'backup.qcow2')
  const tries = new Map<number, number>()
  const failing = (times: number) => {
    const { bytes, custom } = memoryDisk()
    tries.clear()
    return {
      ...custom,
      async read(start: number, length: number) {
        const tried = tries.get(start) ?? 0
        tries.set(start, tried + 1)
        if (start % (3 * MIB) === 0 && tried < times) throw new Error('the array is busy')
        return bytes.subarray(start, start + length)
      },
    }
  }
  const result = await fullBackup(failing(2), target)
  t.equal(result.dataBytes, 11 * MIB + 65536)
  t.equal(tries.get(0), 3)
  t.equal(tries.get(MIB), 1)
  t.equal(qemuImgCheck(target).status, 0)

  for (const [retries, expected] of [
    [0, 1],
    [2, 3],
  ]) {
    const failed = join(t.testdir(), 'backup.qcow2')
    await t.rejects(fullBackup(failing(99), failed, { retries }), {
      code: 'IO',
      message: /^a disk in memory: read at \d+: the array is busy$/,
      cause: { message: 'the array is busy' },
    })
    t.equal(Math.max(...tries.values()), expected)
    t.strictSame(readdirSync(join(failed, '..')), [])
  }
  await t.rejects(fullBackup(failing(0), target, { retries: 101 }), { message: /^retries: / })
})

t.test('a custom source that breaks its contract fails the backup', async (t) => {
  const directory = t.testdir()
  const target = join(directory, 'backup.qcow2')
  const wrong: [string, Partial<CustomSource>, RegExp][] = [
    ['a gap', { extents: () => [{ start: 512, length: 512, zero: true }] }, /starts at 512 where/],
    ['too short', { extents: () => [{ start: 0, length: 512, zero: true }] }, /they end at 512/],
    ['too long', { extents: () => [{ start: 0, length: 2 * SIZE, zero: true }] }, /of a disk of/],
    ['empty', { extents: () => [{ start: 0, length: 0, zero: true }] }, /an extent of 0 bytes/],
    ['an odd size', { size: 1000 }, /not a multiple of 512/],
    [
      'extents that throw',
      {
        // biome-ignore lint/correctness/useYield: it fails before
        *extents() {
          throw new Error('no extents today')
        },
      },
      /no extents today/,
    ],
    ['too few bytes', { read: async () => Buffer.alloc(10) }, /returned 10 bytes at \d+, not \d+$/],
    ['no bytes', { read: async () => 'text' as unknown as Buffer }, /did not return a Uint8Array/],
  ]
  for (const [name, changes, message] of wrong) {
    let closed = 0
    const { custom } = memoryDisk({ ...changes, close: () => void closed++ })
    await t.rejects(fullBackup(custom, target, { retries: 0 }), { message }, name)
    t.strictSame(readdirSync(directory), [], 'nothing is left behind')
    if (name !== 'an odd size') t.equal(closed, 1, `closed after ${name}`)
  }
  const { custom } = memoryDisk()
  for (const options of [
    { bitmap: 'b' },
    { format: 'raw' },
    { connections: 2 },
    { timeoutMs: 9 },
  ] as const) {
    await t.rejects(fullBackup(custom, target, options), { code: 'USAGE' })
  }
})

t.test('an aborted copy aborts the reads that are under way', async (t) => {
  const directory = t.testdir()
  const aborter = new AbortController()
  let waiting = 0
  let aborted = 0
  const { custom } = memoryDisk({
    read: (_start, _length, signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          aborted++
          reject(signal.reason)
        })
        if (++waiting === 4) aborter.abort()
      }),
  })
  const options = { signal: aborter.signal, requests: 4 }
  await t.rejects(fullBackup(custom, join(directory, 'backup.qcow2'), options), { code: 'ABORTED' })
  t.equal(aborted, 4)
  t.strictSame(readdirSync(directory), [])
})

t.test('what is durable is discarded, inward in granules, and never read again', async (t) => {
  const target = join(t.testdir(), 'backup.qcow2')
  const discarded: [number, number][] = []
  const { custom, read } = memoryDisk({
    async discard(start, length) {
      discarded.push([start, length])
    },
  })
  const zeroes = [
    [9 * MIB, 7 * MIB],
    [20 * MIB, 4 * MIB],
  ]
  const slow: CustomSource = {
    ...custom,
    async read(start, length, signal) {
      t.strictSame(discarded.slice(0, 2), zeroes, 'zeroes are discarded before anything is read')
      const isGone = discarded.some(([at, bytes]) => start < at + bytes && at < start + length)
      t.notOk(isGone, 'nothing discarded is read')
      // The copy does not get to its end before something was discarded.
      while (read.length >= 4 && discarded.length === 2) await pause(5)
      return custom.read(start, length, signal)
    },
  }
  await fullBackup(slow, target, { discardAfterCopy: 65536, requests: 1 })
  t.ok(discarded.length > 3, 'while the copy goes on')
  let end = 0
  for (const [start, length] of discarded.slice(2)) {
    t.equal(start, end)
    end = start + length
    t.ok(end % 65536 === 0)
  }
  t.equal(end, SIZE)
  t.ok(read.length > 5)

  const refused: CustomSource = { ...custom, discard: () => Promise.reject(new Error('not now')) }
  const result = await fullBackup(refused, target, { discardAfterCopy: 65536, force: true })
  t.match(result.notes, [/^the backup is complete, but not all was discarded .*not now$/])
  const { discard: _, ...without } = custom
  await t.rejects(fullBackup(without, target, { discardAfterCopy: 65536 }), { code: 'USAGE' })
  for (const discardAfterCopy of [0, 3000, 256, 2 ** 32]) {
    await t.rejects(fullBackup(custom, target, { discardAfterCopy }), { code: 'USAGE' })
  }
})

t.test('extents of a custom source are those it tells', async (t) => {
  const source = await openSource(memoryDisk().custom)
  const extents = []
  for await (const extent of source.extents()) extents.push(extent)
  t.match(extents, [
    { start: 0, length: 9 * MIB, zero: false },
    { start: 9 * MIB, length: 7 * MIB, zero: true },
    { start: 16 * MIB, zero: false },
    { start: 20 * MIB, zero: true },
  ])
})

t.test('an abort ends the call also while extents() does not answer', async (t) => {
  const target = join(t.testdir(), 'target.qcow2')
  const aborting = new AbortController()
  let closed = 0
  const { custom } = memoryDisk({
    async *extents() {
      yield { start: 0, length: MIB, zero: false }
      aborting.abort()
      await new Promise(() => {})
    },
    close: () => void closed++,
  })
  const { signal } = aborting
  await t.rejects(fullBackup(custom, target, { signal }), { code: 'ABORTED' })
  t.equal(closed, 1)
  t.strictSame(readdirSync(join(target, '..')), [])
})
