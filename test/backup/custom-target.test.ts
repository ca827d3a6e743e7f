import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import t, { type Test } from 'tap'
import { type CustomTarget, fullBackup, restore } from '../../lib/index.ts'
import { randomNumbers } from '../support/changes.ts'
import { makeRaw, noise } from '../support/disks.ts'

const MIB = 2 ** 20
const SIZE = 24 * MIB + 512
/** Larger than the disk. */
const ROOM = SIZE + MIB

/** A disk of two stretches of noise, the second of which has zeroes in it, and its backup. */
async function backedUp(t: Test) {
  const directory = t.testdir()
  const bytes = Buffer.alloc(SIZE)
  noise(9 * MIB).copy(bytes)
  noise(3 * MIB).copy(bytes, SIZE - 3 * MIB)
  bytes.fill(0, SIZE - 2 * MIB, SIZE - MIB)
  const disk = makeRaw(join(directory, 'disk.raw'), SIZE, [{ at: 0, bytes }])
  const backup = join(directory, 'backup.qcow2')
  await fullBackup(disk, backup)
  return { bytes, disk, backup }
}

/** A target in memory, in which nothing is zero before, and what it was asked. */
function memoryTarget(changes: Partial<CustomTarget> = {}) {
  const bytes = Buffer.alloc(ROOM, 0xee)
  const asked = { writes: 0, zeroes: 0, flushes: 0, closes: 0, most: 0, sinceFlush: 0 }
  const random = randomNumbers(SIZE)
  let running = 0
  const work = async (what: () => void) => {
    asked.sinceFlush++
    asked.most = Math.max(asked.most, ++running)
    // They end in another order than they were asked for.
    for (let turns = random(20); turns > 0; turns--) await nextTurn()
    what()
    running--
  }
  const target: CustomTarget = {
    name: 'volume 17',
    async write(offset, data) {
      asked.writes++
      await work(() => bytes.set(data, offset))
    },
    async zero(offset, length) {
      asked.zeroes++
      await work(() => bytes.fill(0, offset, offset + length))
    },
    async flush() {
      if (running > 0) throw new Error('flushed while writes are under way')
      asked.flushes++
      asked.sinceFlush = 0
    },
    async close() {
      asked.closes++
    },
    ...changes,
  }
  return { bytes, target, asked }
}

t.test('a backup is restored into a target of the program’s own, byte by byte', async (t) => {
  const { bytes: disk, backup } = await backedUp(t)
  const { bytes, target, asked } = memoryTarget()
  const result = await restore(backup, target)
  t.ok(bytes.subarray(0, SIZE).equals(disk))
  t.ok(
    bytes.subarray(SIZE).every((byte) => byte === 0xee),
    'nothing behind the disk is written',
  )
  t.match(result, { target: 'volume 17', virtualSize: SIZE, fileSize: SIZE })
  t.ok(result.allocatedBytes < 12 * MIB, 'zeroes are not written')
  t.match(asked, { flushes: 1, closes: 1, sinceFlush: 0 })
  t.ok(asked.zeroes > 0)
  t.ok(asked.most > 1, 'several at once')
  t.ok(asked.most <= 16, 'no more than it is told')
})

t.test('a target that makes no zeroes by itself gets them written', async (t) => {
  const { bytes: disk, backup } = await backedUp(t)
  const { bytes, target, asked } = memoryTarget({ zero: undefined, close: undefined })
  const result = await restore(backup, target)
  t.ok(bytes.subarray(0, SIZE).equals(disk))
  t.equal(result.allocatedBytes, SIZE)
  t.ok(asked.most <= 16)
})

t.test('a full backup into a target of the program’s own is the disk as it is', async (t) => {
  const { bytes: content, disk } = await backedUp(t)
  const { bytes, target } = memoryTarget({ size: ROOM })
  const result = await fullBackup(disk, target)
  t.ok(bytes.subarray(0, SIZE).equals(content))
  t.match(result.notes, [/^volume 17: is larger than the disk/])
  for (const options of [
    { clusterSize: 4096 },
    { compress: 'zstd' },
    { verify: true },
    { manifest: true },
  ] as const) {
    const [argument] = Object.keys(options)
    await t.rejects(fullBackup(disk, target, options), { code: 'USAGE', argument })
  }
})

t.test('a source and a target of the program’s own go together', async (t) => {
  const content = noise(3 * MIB + 512)
  const { bytes, target, asked } = memoryTarget()
  const source = {
    name: 'volume 16',
    size: content.length,
    extents: () => [{ start: 0, length: content.length, zero: false }],
    async read(start: number, length: number) {
      await nextTurn()
      return content.subarray(start, start + length)
    },
  }
  await fullBackup(source, target)
  t.ok(bytes.subarray(0, content.length).equals(content))
  t.match(asked, { flushes: 1, closes: 1, sinceFlush: 0 })
})

t.test('a target that is too small is refused before it is written to', async (t) => {
  const { backup } = await backedUp(t)
  const { target, asked } = memoryTarget({ size: SIZE - 512 })
  await t.rejects(restore(backup, target), { code: 'BAD_TARGET', what: 'volume 17' })
  t.match(asked, { writes: 0, zeroes: 0, closes: 1 })
})

t.test('options and targets that do not go together are refused', async (t) => {
  const { backup } = await backedUp(t)
  const { target, asked } = memoryTarget()
  await t.rejects(restore(backup, target, { outputFormat: 'qcow2' }), {
    code: 'USAGE',
    argument: 'outputFormat',
  })
  await t.rejects(restore(backup, target, { noHole: true }), { code: 'USAGE', argument: 'noHole' })
  for (const wrong of [
    { ...target, name: 17 },
    { ...target, write: undefined },
    { ...target, flush: 'now' },
    { ...target, size: -1 },
    { ...target, zero: true },
    17,
    null,
  ]) {
    const refused = { code: 'USAGE', argument: 'target' }
    await t.rejects(restore(backup, wrong as unknown as CustomTarget), refused)
  }
  t.equal(asked.writes, 0)
})

t.test('a write, zeroes or a flush that rejects ends the copy with its reason', async (t) => {
  const { backup } = await backedUp(t)
  const fails = async () => {
    throw new Error('the array is full')
  }
  for (const [what, message] of [
    ['write', /^volume 17: write at \d+: the array is full$/],
    ['zero', /^volume 17: write at \d+: the array is full$/],
    ['flush', /^volume 17: sync: the array is full$/],
  ] as const) {
    const { target, asked } = memoryTarget({ [what]: fails })
    const expected = { code: 'IO', message, cause: { message: 'the array is full' } }
    await t.rejects(restore(backup, target), expected, what)
    t.equal(asked.closes, 1, 'closed')
  }
})

t.test('nothing is written any more when an aborted copy rejects', async (t) => {
  const { backup } = await backedUp(t)
  const aborter = new AbortController()
  let running = 0
  let aborted = 0
  const { target, asked } = memoryTarget({
    write: (_offset, _data, signal) =>
      new Promise((_resolve, reject) => {
        if (++running === 4) aborter.abort()
        signal.addEventListener('abort', async () => {
          for (let turns = 0; turns < 5; turns++) await nextTurn()
          running--
          aborted++
          reject(signal.reason)
        })
      }),
  })
  const options = { signal: aborter.signal }
  await t.rejects(restore(backup, target, options), { code: 'ABORTED', what: 'volume 17' })
  t.equal(running, 0)
  t.ok(aborted >= 4)
  t.match(asked, { flushes: 0, closes: 1 })
})

t.test(
  'a close() that fails fails a copy that was complete, but hides no other failure',
  async (t) => {
    const { backup } = await backedUp(t)
    const close = async () => {
      throw new Error('the upload was not finished')
    }
    const message = /^volume 17: .*the upload was not finished/
    await t.rejects(restore(backup, memoryTarget({ close }).target), { code: 'IO', message })
    const write = async () => {
      throw new Error('the array is full')
    }
    const { target } = memoryTarget({ close, write })
    await t.rejects(restore(backup, target), { message: /the array is full$/ })
  },
)

t.test('a worker that is terminated while it writes takes nobody along', async (t) => {
  const { backup, disk } = await backedUp(t)
  const index = new URL('../../lib/index.js', import.meta.url).href
  const code = `
    const { parentPort, workerData } = require('node:worker_threads')
    import(workerData.index).then(async ({ restore }) => {
      const write = () => new Promise(() => parentPort.postMessage('writing'))
      await restore(workerData.backup, { name: 'silent', write, async flush() {} })
    })
  `
  for (let round = 0; round < 3; round++) {
    const worker = new Worker(code, { eval: true, workerData: { index, backup } })
    await new Promise((resolve) => worker.once('message', resolve))
    await worker.terminate()
  }
  const { bytes, target } = memoryTarget()
  await restore(backup, target)
  t.ok(bytes.subarray(0, SIZE).equals(readFileSync(disk)))
})

t.test(
  'what a target rejects with may be anything: the call ends, with an error of ours',
  async (t) => {
    const { backup } = await backedUp(t)
    const unreadable = Object.defineProperty(new Error('x'), 'message', {
      get() {
        throw new Error('no')
      },
    })
    for (const thrown of [undefined, Symbol('x'), Object.create(null), unreadable]) {
      const { target, asked } = memoryTarget({ write: () => Promise.reject(thrown) })
      await t.rejects(restore(backup, target), { code: 'IO', what: 'volume 17' })
      t.equal(asked.closes, 1)
    }
  },
)

t.test('a target is closed once, also where the copy cannot begin', async (t) => {
  const { backup } = await backedUp(t)
  const cases = [
    { from: `${backup}.missing`, size: undefined },
    { from: backup, size: 512 },
    { from: backup, size: undefined },
  ]
  for (const { from, size } of cases) {
    const { target, asked } = memoryTarget({ size })
    await restore(from, target).catch(() => {})
    t.equal(asked.closes, 1, from)
  }
})
