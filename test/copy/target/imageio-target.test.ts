import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import t from 'tap'
import { fullBackup, restore } from '../../../lib/index.ts'
import { makeRaw, noise } from '../../support/disks.ts'
import { refuse, startImageioDaemon, TICKET } from '../../support/imageio-daemon.ts'

const MIB = 2 ** 20
const SIZE = 300 * MIB

/** A backup of a disk that is mostly zero, and the disk. */
async function backup(directory: string) {
  const disk = Buffer.alloc(SIZE)
  noise(5 * MIB + 512).copy(disk, MIB)
  noise(MIB).copy(disk, SIZE - MIB)
  makeRaw(join(directory, 'disk.raw'), SIZE, [{ at: 0, bytes: disk }])
  const path = join(directory, 'backup.qcow2')
  await fullBackup(join(directory, 'disk.raw'), path)
  return { disk, path }
}

t.test('a restore writes all of an image, and flushes it at the end', async (t) => {
  const { disk, path } = await backup(t.testdir())
  const bytes = Buffer.alloc(SIZE, 0xaa)
  const daemon = await startImageioDaemon(t, { bytes, ops: 'write' })
  const result = await restore(path, daemon.url)
  t.ok(bytes.equals(disk))
  t.match(result, { virtualSize: SIZE, fileSize: SIZE, notes: undefined })
  t.notMatch(result.target, TICKET)
  t.equal(daemon.unflushed(), 0)
  const { requests } = daemon
  t.ok(requests.some((one) => one.startsWith('PUT ?flush=n')))
  t.notOk(requests.some((one) => one.startsWith('PUT bytes')))
  const zeroes = requests.filter((one) => one.startsWith('zero')).map((one) => +one.split('+')[1])
  t.ok(Math.max(...zeroes) <= 128 * MIB && zeroes.reduce((a, b) => a + b) >= 293 * MIB)
  const flushes = requests.filter((one) => one.startsWith('flush')).length
  t.ok(flushes >= 1 && flushes <= 4, 'once for each connection')
  t.match(requests.at(-1), /flush/)
})

t.test('a server of few abilities gets what it can take', async (t) => {
  const { disk, path } = await backup(t.testdir())
  for (const options of [405, { features: ['extents'], max_writers: 1 }]) {
    const bytes = Buffer.alloc(SIZE, 0xaa)
    const daemon = await startImageioDaemon(t, { bytes, ops: 'write', options })
    await restore(path, daemon.url)
    t.ok(bytes.equals(disk))
    t.equal(daemon.unflushed(), 0)
    t.notOk(daemon.requests.some((one) => /PATCH|flush=n/.test(one)))
    t.ok(daemon.connections() <= 2)
  }
})

t.test('a write that was lost is done again', async (t) => {
  const { disk, path } = await backup(t.testdir())
  const bytes = Buffer.alloc(SIZE, 0xaa)
  const daemon = await startImageioDaemon(t, {
    bytes,
    ops: 'write',
    instead(request, response, count) {
      const lost = /PUT|PATCH/.test(request.method!) && count % 5 === 0
      if (lost && count % 2 === 0) request.destroy()
      else if (lost) refuse(response, 500, 'Server failed to perform the request')
      return lost
    },
  })
  await restore(path, daemon.url)
  t.ok(bytes.equals(disk))
  t.equal(daemon.unflushed(), 0)
})

t.test('what is not complete is said to be so', async (t) => {
  const { path } = await backup(t.testdir())
  const failing = await startImageioDaemon(t, {
    bytes: Buffer.alloc(SIZE),
    ops: 'write',
    instead(request, response, count) {
      if (request.method !== 'PUT' || count < 12) return false
      refuse(response, 403, `Ticket ${TICKET} expired`)
      return true
    },
  })
  const error = await restore(path, failing.url).catch((error) => error)
  t.match(error, { code: 'IO', why: /\(403\).*Ticket … expired; .*is incomplete; do not use it/ })
  t.notMatch(`${error.stack} ${error.cause?.stack}`, TICKET)
  const full = await startImageioDaemon(t, { bytes: Buffer.alloc(MIB), ops: 'write' })
  await t.rejects(restore(path, full.url), { code: 'BAD_TARGET', why: /holds 1 MiB/ })
  const reading = await startImageioDaemon(t, { bytes: Buffer.alloc(SIZE) })
  await t.rejects(restore(path, reading.url), { code: 'BAD_TARGET', why: /for reading only/ })
  t.notOk(reading.requests.some((one) => one.startsWith('PUT')))
  const options = { outputFormat: 'qcow2' } as const
  await t.rejects(restore(path, reading.url, options), { code: 'USAGE' })
  await t.rejects(fullBackup(path, reading.url), { code: 'USAGE', why: /as restore writes it/ })
})

t.test('an abort ends an upload at once', async (t) => {
  const directory = t.testdir()
  const path = join(directory, 'backup.qcow2')
  makeRaw(join(directory, 'disk.raw'), 8 * MIB, [{ at: 0, bytes: randomBytes(8 * MIB) }])
  await fullBackup(join(directory, 'disk.raw'), path)
  const stop = new AbortController()
  const daemon = await startImageioDaemon(t, {
    bytes: Buffer.alloc(8 * MIB),
    ops: 'write',
    instead(request) {
      if (request.method !== 'PUT') return false
      stop.abort()
      return true
    },
  })
  const failed = restore(path, daemon.url, { signal: stop.signal })
  await t.rejects(failed, { code: 'ABORTED', why: /interrupted; .*incomplete/ })
})
