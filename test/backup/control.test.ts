/** How a copy that runs is watched, slowed down and stopped. */
import { getEventListeners } from 'node:events'
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { BackupError, fullBackup, type Progress, restore } from '../../lib/index.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { qemuImgCheck, qemuImgSame } from '../support/qemu.ts'

// More than tap's default, for a busy machine.
t.setTimeout(180_000)

const MIB = 2 ** 20

/** A disk whose second half is a hole. */
function setUp(test: Test, size = 8 * MIB) {
  const directory = test.testdir()
  const parts = [{ at: 0, bytes: noise(size / 2) }]
  const disk = makeRaw(join(directory, 'disk.raw'), size, parts)
  return { directory, disk, image: join(directory, 'backup.qcow2') }
}

/** So slow that the copy of the disk above ends only if it is stopped. */
const CRAWL = { rateLimit: 1 }

const ABORTED = { name: 'BackupError', code: 'ABORTED', message: /: interrupted$/ }

t.test('a signal that is aborted already makes nothing', async (t) => {
  const { directory, disk, image } = setUp(t)
  const signal = AbortSignal.abort()
  await t.rejects(fullBackup(disk, image, { signal }), { ...ABORTED, what: image })
  await t.rejects(restore(disk, image, { signal, format: 'raw' }), { ...ABORTED, what: image })
  t.strictSame(readdirSync(directory), ['disk.raw'])
})

t.test('a signal aborts a running copy', async (t) => {
  const { directory, disk, image } = setUp(t)
  await fullBackup(disk, image)
  const backup = readFileSync(image)
  const target = join(directory, 'target')
  for (const how of [{}, { engine: 'threads' }, { direct: 'off' }] as const) {
    for (const run of [fullBackup, restore]) {
      const controller = new AbortController()
      const { signal } = controller
      const copying = run(image, target, {
        ...CRAWL,
        ...how,
        signal,
        onProgress: () => controller.abort(),
      })
      await t.rejects(copying, { ...ABORTED, what: target })
      t.equal(getEventListeners(signal, 'abort').length, 0, 'nothing listens any more')
    }
  }
  t.strictSame(readdirSync(directory).sort(), ['backup.qcow2', 'disk.raw'])

  writeFileSync(target, 'QFI\xfbwhat was there', 'latin1')
  const controller = new AbortController()
  const options = { ...CRAWL, signal: controller.signal, force: true }
  const onProgress = () => controller.abort()
  await t.rejects(fullBackup(image, target, { ...options, onProgress }), ABORTED)
  t.equal(readFileSync(target, 'latin1'), 'QFI\xfbwhat was there')
  t.ok(readFileSync(image).equals(backup), 'the source is as it was')
})

t.test('aborted at any moment: nothing, or all of it', async (t) => {
  const { directory, disk, image } = setUp(t)
  const { elapsedSeconds } = await fullBackup(disk, image)
  rmSync(image)
  let complete = 0
  for (let i = 0; i < 40; i++) {
    const controller = new AbortController()
    const copying = fullBackup(disk, image, { signal: controller.signal, force: true })
    const ended = copying.then(
      () => 'complete',
      (error) => (error instanceof BackupError ? error.code : error),
    )
    await sleep(((1.5 * i) / 40) * elapsedSeconds * 1000)
    controller.abort()
    const how = await ended
    if (how === 'complete') {
      complete++
      t.equal(qemuImgCheck(image).status, 0)
      t.ok(qemuImgSame({ path: image, format: 'qcow2' }, { path: disk, format: 'raw' }))
    } else {
      t.equal(how, 'ABORTED')
    }
    const names = complete > 0 ? ['backup.qcow2', 'disk.raw'] : ['disk.raw']
    t.strictSame(readdirSync(directory).sort(), names)
  }
  t.comment(`${complete} of 40 were complete`)
})

t.test('aborting one copy leaves another alone', async (t) => {
  const { directory, disk, image } = setUp(t)
  const controller = new AbortController()
  const slow = fullBackup(disk, join(directory, 'slow'), { ...CRAWL, signal: controller.signal })
  const stopped = t.rejects(slow, ABORTED)
  const others = Array.from({ length: 4 }, (_, i) => fullBackup(disk, `${image}${i}`))
  await Promise.all(others)
  controller.abort()
  await stopped
  for (let i = 0; i < 4; i++) {
    t.ok(qemuImgSame({ path: `${image}${i}`, format: 'qcow2' }, { path: disk, format: 'raw' }))
  }
})

t.test('progress only rises, and ends at the whole disk', async (t) => {
  const { directory, disk, image } = setUp(t)
  for (const run of [fullBackup, restore]) {
    const from = run === restore ? image : disk
    const target = run === restore ? join(directory, 'restored.raw') : image
    const steps: Progress[] = []
    const options = { rateLimit: 8 * MIB, onProgress: (step: Progress) => steps.push(step) }
    const result = await run(from, target, options)
    t.ok(steps.length > 2, `${steps.length} calls`)
    t.ok(steps.length <= result.elapsedSeconds * 10 + 2, 'ten a second at most, and one at the end')
    for (const [i, { position, dataBytes, elapsedSeconds, size }] of steps.entries()) {
      const before = i > 0 ? steps[i - 1] : { position: 0, dataBytes: 0, elapsedSeconds: 0 }
      t.ok(position >= before.position && position <= size, `position ${position}`)
      t.ok(dataBytes >= before.dataBytes && dataBytes <= position, `data ${dataBytes}`)
      t.ok(elapsedSeconds >= before.elapsedSeconds)
      t.equal(size, 8 * MIB)
    }
    const { position, dataBytes } = steps.at(-1)!
    t.equal(position, 8 * MIB)
    t.equal(dataBytes, result.dataBytes)
  }
})

t.test('the progress of a disk without a byte is one call', async (t) => {
  const { image } = setUp(t)
  const disk = makeRaw(join(t.testdirName, 'empty.raw'), 0, [])
  const steps: Progress[] = []
  await fullBackup(disk, image, { onProgress: (step) => steps.push(step) })
  // Once at least: on a slow machine the timer may come between.
  t.ok(steps.length > 0)
  for (const step of steps) t.match(step, { position: 0, size: 0, dataBytes: 0 })
})

t.test(
  'what onProgress throws once ended the process, or was told as an error of the target',
  async (t) => {
    const { directory, disk, image } = setUp(t)
    const mine = new Error('mine')
    for (const options of [CRAWL, {}]) {
      const onProgress = () => {
        throw mine
      }
      const told = { code: 'CALLBACK', what: 'onProgress()', message: /mine/ }
      await t.rejects(fullBackup(disk, image, { ...options, onProgress }), told)
      const caught = await fullBackup(disk, image, { ...options, onProgress }).catch(
        (error) => error,
      )
      t.equal(caught.cause, mine, 'the very error')
    }
    t.strictSame(readdirSync(directory), ['disk.raw'])
  },
)

t.test('a rate limit spaces the reads', async (t) => {
  const { disk, image } = setUp(t)
  for (const how of [{}, { engine: 'threads' }, { requests: 64 }, { compress: 'zlib' }] as const) {
    const rateLimit = 8 * MIB
    const { elapsedSeconds, dataBytes } = await fullBackup(disk, image, {
      ...how,
      rateLimit,
      force: true,
    })
    t.equal(dataBytes, 4 * MIB)
    const least = (dataBytes / rateLimit) * 0.5
    t.ok(elapsedSeconds >= least, `${elapsedSeconds} s, at least ${least}`)
  }
})

t.test('a rate limit counts what is read, not what is skipped', async (t) => {
  const { image } = setUp(t)
  // At 64 KiB a second the hole would take 194 days.
  const disk = makeRaw(join(t.testdirName, 'hole.raw'), 2 ** 40, [
    { at: 2 ** 39, bytes: noise(512) },
  ])
  const { virtualSize } = await fullBackup(disk, image, { rateLimit: 65536 })
  t.equal(virtualSize, 2 ** 40)
})

t.test('any number of requests makes the same image', async (t) => {
  const { disk, image } = setUp(t)
  await fullBackup(disk, image)
  const expected = readFileSync(image)
  for (const requests of [1, 2, 3, 16, 100, 1024]) {
    for (const engine of ['auto', 'threads'] as const) {
      await fullBackup(disk, image, { requests, engine, force: true })
      t.ok(readFileSync(image).equals(expected), `${requests} requests, ${engine}`)
    }
  }
})
