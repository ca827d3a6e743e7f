/** The addon's connection for planning: what it tells of a server, and trims. */
import { copyFileSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type Addon, type NbdHandle, native } from '../../lib/native.ts'
import { addonPath } from '../support/addon.ts'
import { startNbdkit } from '../support/nbdkit.ts'

const addon = native()
const GIB = 2 ** 30

/** A connection to an nbdkit, with what its log filter wrote down so far. */
async function connect(t: Test, ...args: string[]) {
  const log = join(t.testdir(), 'log')
  const server = await startNbdkit(t, '--filter=log', ...args, `logfile=${log}`)
  const spec = { uri: server.uri(), timeoutMs: 20_000, contexts: ['base:allocation'] }
  const handle = addon.nbdOpen(spec)
  t.teardown(() => addon.nbdClose(handle))
  const info = await addon.nbdConnect(handle)
  const requests = () => readFileSync(log, 'utf8').match(/(?<= )(Trim|Zero|Write) .*(?= \.\.\.)/g)
  return { server, spec, handle, info, requests }
}

t.test('what a server can is reported', async (t) => {
  const { info } = await connect(t, 'memory', '1M')
  const all = { readOnly: false, canTrim: true, canZero: true, canFlush: true }
  t.match(info, { size: 2 ** 20, ...all })
})

t.test('what a server cannot is reported', async (t) => {
  const { info } = await connect(t, '-r', 'eval', 'get_size=echo 1M', 'pread=exit 1')
  const nothing = { readOnly: true, canTrim: false, canZero: false, canFlush: false }
  t.match(info, nothing)
})

t.test('a trim is of the exact range', async (t) => {
  const { handle, requests } = await connect(t, 'memory', '1M')
  t.equal(await addon.nbdTrim(handle, new Float64Array([4096, 512])), undefined)
  await addon.nbdTrim(handle, new Float64Array([65536, 2 ** 20 - 65536]))
  await addon.nbdTrim(handle, new Float64Array([0, 0]))
  t.strictSame(requests(), [
    'Trim id=1 offset=0x1000 count=0x200 fua=0',
    'Trim id=2 offset=0x10000 count=0xf0000 fua=0',
  ])
})

t.test('many ranges are trimmed in one call', async (t) => {
  const { handle, requests } = await connect(t, 'memory', '8M')
  const starts = Array.from({ length: 100 }, (_, i) => i * 65536)
  await addon.nbdTrim(handle, new Float64Array(starts.flatMap((start) => [start, 4096])))
  const trimmed = requests()!.map((line) => Number(/offset=(\S+) count=0x1000 /.exec(line)![1]))
  t.strictSame(
    trimmed.sort((a, b) => a - b),
    starts,
  )
})

t.test('a long trim is cut at multiples of 1 GiB', async (t) => {
  const { handle, requests } = await connect(t, 'memory', '8G')
  await addon.nbdTrim(handle, new Float64Array([GIB - 4096, 5 * GIB]))
  // Several are under way at once, and the server takes them in any order.
  const parts = requests()!.map((line) => line.replace(/id=\d+ /, ''))
  t.strictSame(parts.sort(), [
    'Trim offset=0x100000000 count=0x40000000 fua=0',
    'Trim offset=0x140000000 count=0x3ffff000 fua=0',
    'Trim offset=0x3ffff000 count=0x1000 fua=0',
    'Trim offset=0x40000000 count=0x40000000 fua=0',
    'Trim offset=0x80000000 count=0x40000000 fua=0',
    'Trim offset=0xc0000000 count=0x40000000 fua=0',
  ])
})

t.test('a trim that the server refuses fails', async (t) => {
  const readOnly = await connect(t, '-r', 'memory', '1M')
  await t.rejects(addon.nbdTrim(readOnly.handle, new Float64Array([0, 4096])), { code: 'EPERM' })
  const noTrim = ['get_size=echo 1M', 'pread=exit 1', 'pwrite=exit 1']
  const unable = await connect(t, 'eval', ...noTrim)
  await t.rejects(addon.nbdTrim(unable.handle, new Float64Array([0, 4096])), { code: 'EINVAL' })
  const failing = ['can_trim=exit 0', 'trim=echo ENOSPC no >&2; exit 1']
  const failed = await connect(t, 'eval', ...noTrim, ...failing)
  await t.rejects(addon.nbdTrim(failed.handle, new Float64Array([0, 4096])), {
    code: 'ENOSPC',
    context: 'trim',
  })
  t.equal((await addon.nbdStatus(failed.handle, 0, 4096)).length, 1, 'it goes on')
})

t.test('requests to a server that goes away fail', async (t) => {
  const { handle, server } = await connect(t, 'memory', '1M')
  await server.stop('SIGKILL')
  await t.rejects(addon.nbdTrim(handle, new Float64Array([0, 4096])), {
    code: /ENOTCONN|ECONNRESET|EPIPE/,
  })
})

/** Calls everything that takes a connection with something else. */
function refuses(t: Test, value: unknown, message: string): void {
  const handle = value as NbdHandle
  const error = { name: 'TypeError', message }
  t.throws(() => addon.nbdConnect(handle), error)
  t.throws(() => addon.nbdStatus(handle, 0, 512), error)
  t.throws(() => addon.nbdTrim(handle, new Float64Array([0, 512])), error)
}

t.test('what is not a connection is refused', async (t) => {
  const { handle, spec } = await connect(t, 'memory', '1M')
  const path = join(t.testdir(), 'other.node')
  copyFileSync(addonPath(), path)
  const other = createRequire(import.meta.url)(path) as Addon
  const ofOther = other.nbdOpen(spec)
  for (const value of [undefined, {}, Object.create(handle), ofOther]) {
    refuses(t, value, 'not an NBD connection')
    t.throws(() => addon.nbdClose(value as NbdHandle), { name: 'TypeError' })
  }
  other.nbdClose(ofOther)
  addon.nbdClose(handle)
  refuses(t, handle, 'NBD connection is closed')
  addon.nbdClose(handle)
})
