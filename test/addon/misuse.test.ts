/** What the addon is called with that TypeScript would not: no crash, and no promise left open. */
import { copyFileSync, readdirSync, readlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { fullBackup } from '../../lib/index.ts'
import { type Addon, type CopyJob, type CopySpec, native } from '../../lib/native.ts'
import { addonPath } from '../support/addon.ts'
import { allRows, imageAt, makeDisk, SIZE, specOf } from './job.ts'

const addon = native()

/** A job that copies the disk of a new directory. */
function jobOf(test: Test, changes: Partial<CopySpec> = {}): CopyJob {
  const directory = test.testdir()
  makeDisk(directory)
  const job = addon.copyStart(specOf(directory, changes))
  test.teardown(() => addon.copyCancel(job))
  return job
}

/** Calls everything that takes a job with something else. */
function refuses(test: Test, value: unknown, name: string): void {
  const job = value as CopyJob
  const error = { name: 'TypeError', message: 'not a copy job' }
  test.throws(() => addon.copyPush(job, allRows(), 1), error, `copyPush, ${name}`)
  test.throws(() => addon.copyFinish(job), error, `copyFinish, ${name}`)
  test.throws(() => addon.copyCancel(job), error, `copyCancel, ${name}`)
  test.throws(() => addon.copyProgress(job, new Float64Array(5)), error, `copyProgress, ${name}`)
}

t.test('a method called on what is not a job throws', async (t) => {
  for (const value of [undefined, null, 1, 'job', Symbol('job'), {}, [], () => {}]) {
    refuses(t, value, String(value))
  }
  const job = jobOf(t)
  refuses(t, Object.create(job), 'an heir of a job')
  refuses(t, new Proxy(job, {}), 'a proxy of a job')
  refuses(t, { ...job }, 'a copy of a job')
})

t.test('a job of another copy of the addon was once taken for one of this', async (t) => {
  const directory = t.testdir()
  makeDisk(directory)
  const path = join(directory, 'other.node')
  copyFileSync(addonPath(), path)
  const other = createRequire(import.meta.url)(path) as Addon
  const job = other.copyStart(specOf(directory))
  refuses(t, job, 'of another copy')
  await other.copyPush(job, allRows(), 1)
  t.match(await other.copyFinish(job), { dataBytes: SIZE }, 'it still works')
})

t.test('arrays of other numbers were once written past their end', async (t) => {
  const job = jobOf(t)
  const error = { name: 'TypeError', message: 'not a Float64Array' }
  const wrong = [
    undefined,
    null,
    {},
    [],
    5,
    new Uint8Array(5),
    new Float32Array(5),
    Buffer.alloc(8),
  ]
  for (const value of wrong) {
    const array = value as unknown as Float64Array
    t.throws(() => addon.copyProgress(job, array), error)
    t.throws(() => addon.copyPush(job, array, 1), error)
  }
  const short = new Float64Array(2)
  addon.copyProgress(job, short)
  t.strictSame([...short], [0, 0], 'as much as there is room for')
  await addon.copyPush(job, allRows(), 1)
  t.match(await addon.copyFinish(job), { dataBytes: SIZE })
})

t.test('rows that cannot be are refused before a byte is written', async (t) => {
  const job = jobOf(t)
  for (const row of [
    [5, 0, 512, 0, 0, 0, 0, 0],
    [13, 0, 512, 0, 0, 0, 0, 0],
    [16, 0, 512, 0, 0, 0, 0, 0],
    [2, -1, 512, 0, 0, 0, 0, 0],
    [2, Number.NaN, 512, 0, 0, 0, 0, 0],
    [2, 0, 0, 0, 0, 0, 0, 0],
    [2, 0, 512, 1, 0, 0, 0, 0],
    [2, 0, 512, 0, Number.POSITIVE_INFINITY, 0, 0, 0],
    [3, 0, 512, 0, 0, 512, 2 ** 40, 0],
  ]) {
    const rows = new Float64Array(row)
    t.throws(() => addon.copyPush(job, rows, 1), { code: 'EINVAL' }, row.join())
  }
  t.equal(await addon.copyPush(job, new Float64Array(7), 1), true, 'less than a row is none')
  await addon.copyPush(job, allRows(), 1)
  t.match(await addon.copyFinish(job), { dataBytes: SIZE }, 'none of them was taken')
})

t.test('rows that do not follow each other, or leave the disk, fail the job', async (t) => {
  for (const row of [
    [2, 512, 512, 0, 0, 0, 0, 0],
    [2, 0, 2 * SIZE, 0, 0, 0, 0, 0],
    [0, 0, 2 * SIZE, 0, 0, 0, 0, 0],
  ]) {
    const job = jobOf(t)
    await addon.copyPush(job, new Float64Array(row), 1)
    await t.rejects(addon.copyFinish(job), { code: 'EINVAL' }, row.join())
  }
})

t.test('a job with a wrong specification does not start', async (t) => {
  const directory = t.testdir()
  makeDisk(directory)
  const spec = specOf(directory)
  const noObject = { message: 'Cannot convert undefined or null to object' }
  const noType = { message: /^An? (array|string|number|object) was expected$/ }
  t.throws(() => addon.copyStart(undefined as unknown as CopySpec), noObject)
  t.throws(() => addon.copyStart({} as CopySpec), noType)
  t.throws(() => addon.copyStart({ ...spec, sources: 'disk' } as unknown as CopySpec), noType)
  t.throws(
    () => addon.copyStart({ ...spec, sources: [undefined] } as unknown as CopySpec),
    noObject,
  )
  t.throws(() => addon.copyStart({ ...spec, target: 'file' } as unknown as CopySpec), {
    message: 'target: no object',
  })
  const nothing = { kind: 'nothing' }
  const unknown = { name: 'TypeError', message: 'unknown kind: nothing' }
  t.throws(() => addon.copyStart({ ...spec, target: nothing } as unknown as CopySpec), unknown)
  const store = { ...spec, target: { kind: 'raw', store: nothing } } as unknown as CopySpec
  t.throws(() => addon.copyStart(store), unknown)
  const sources = [{ ...nothing, size: 1 }]
  t.throws(() => addon.copyStart({ ...spec, sources } as unknown as CopySpec), unknown)
  t.throws(() => addon.copyStart({ ...spec, target: imageAt(9999) }), { code: 'EBADF', failure: 4 })
  t.throws(() => addon.copyStart({ ...spec, sources: [{ kind: 'file', fd: 9999, size: 1 }] }), {
    code: 'EBADF',
    failure: 1,
    file: 0,
  })
})

t.test('the first of two finishes was once never told', async (t) => {
  const job = jobOf(t)
  await addon.copyPush(job, allRows(), 1)
  const ends = await Promise.all([addon.copyFinish(job), addon.copyFinish(job)])
  t.strictSame(ends[0], ends[1])
  t.match(ends[0], { dataBytes: SIZE })
})

t.test('a job that has ended takes no more rows', async (t) => {
  const ended = {
    done: async () => {
      const job = jobOf(t)
      await addon.copyPush(job, allRows(), 1)
      return job
    },
    failed: async () => jobOf(t),
    cancelled: async () => {
      const job = jobOf(t, { rateLimit: 1 })
      await addon.copyPush(job, allRows(), 1)
      addon.copyCancel(job)
      return job
    },
  }
  for (const [how, prepare] of Object.entries(ended)) {
    const job = await prepare()
    const first = await addon.copyFinish(job).catch((error) => error)
    for (let again = 0; again < 2; again++) {
      t.equal(await addon.copyPush(job, allRows(), 1), false, `${how}: a push is told`)
      const next = await addon.copyFinish(job).catch((error) => error)
      t.match(next, how === 'done' ? first : { code: first.code }, `${how}: finishes the same`)
      addon.copyCancel(job)
      const numbers = new Float64Array(5)
      addon.copyProgress(job, numbers)
      t.equal(numbers[0], how === 'done' ? SIZE : 0, `${how}: progress`)
      await sleep(10)
    }
  }
})

t.test('rows after the last ones end the job as it ended, or as EINVAL', async (t) => {
  const job = jobOf(t, { rateLimit: 64 * 2 ** 20 })
  addon.copyPush(job, allRows(), 1)
  const finished = addon.copyFinish(job)
  const pushes = Array.from({ length: 5 }, () => addon.copyPush(job, allRows(), 1))
  // They are taken, and then do not follow on the last, if they come in time.
  const end = await finished.catch((error) => error)
  t.ok(end.dataBytes === SIZE || end.code === 'EINVAL', end)
  for (const push of await Promise.all(pushes)) t.type(push, 'boolean')
})

t.test('pushes that wait for room when the job is cancelled', async (t) => {
  const job = jobOf(t, { rateLimit: 1 })
  const rows = allRows()
  const pushes = [0, 8, 16, 24, 32, 40].map((at) =>
    addon.copyPush(job, rows.subarray(at, at + 8), 1),
  )
  addon.copyCancel(job)
  for (const push of await Promise.all(pushes)) t.type(push, 'boolean')
  await t.rejects(addon.copyFinish(job), { code: 'ECANCELED', failure: 5 })
})

t.test('calls about files that are not open fail with their errno', async (t) => {
  const directory = t.testdir({ file: 'content' })
  t.throws(() => addon.deviceSize(9999), { code: 'EBADF' })
  const noNumber = { name: 'TypeError', message: 'A number was expected' }
  t.throws(() => addon.deviceSize('file' as unknown as number), noNumber)
  t.throws(() => addon.linkFile(9999, Buffer.from(join(directory, 'new'))), { code: 'ENOENT' })
  t.throws(() => addon.linkFile(1, undefined as unknown as Buffer), { code: 'EINVAL' })
  await t.rejects(addon.fileExtents(9999, 0, 10, 10), { code: 'EBADF' })
  t.throws(() => addon.fileExtents(undefined as unknown as number, 0, 10, 10), noNumber)
})

/** What this process has open below a directory. */
function openBelow(directory: string): string[] {
  return readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      const path = readlinkSync(`/proc/self/fd/${fd}`)
      return path.startsWith(directory) ? [path] : []
    } catch {
      return [] // that of the listing itself
    }
  })
}

t.test(
  'files once stayed open, and unnamed ones on disk, until the job was collected',
  async (t) => {
    const directory = t.testdir()
    const disk = makeDisk(directory)
    const image = join(directory, 'backup.qcow2')
    const controller = new AbortController()
    const onProgress = () => controller.abort()
    const slow = { rateLimit: 1, signal: controller.signal, onProgress }
    await t.rejects(fullBackup(disk, image, slow), { code: 'ABORTED' })
    t.strictSame(openBelow(directory), [], 'aborted')
    await fullBackup(disk, image)
    t.strictSame(openBelow(directory), [], 'complete')
    const none = { requests: 0, force: true }
    await t.rejects(fullBackup(disk, image, none), { code: 'USAGE', what: 'requests' })
    writeFileSync(image, 'not an image')
    const wrong = fullBackup(image, join(directory, 'new'), { format: 'qcow2' })
    await t.rejects(wrong, { code: 'BAD_IMAGE', what: image })
    t.strictSame(openBelow(directory), [], 'failed')
  },
)
