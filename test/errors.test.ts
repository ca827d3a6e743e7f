import { MessageChannel, Worker } from 'node:worker_threads'
import t from 'tap'
import {
  abortedError,
  argumentError,
  BackupError,
  ioError,
  isBackupError,
  throwIfAborted,
} from '../lib/errors.ts'
import { QemuImgError, QemuImgUsageError, reasonOf } from '../lib/qemu-img/messages.ts'

const ERRORS = new URL('../lib/errors.js', import.meta.url).href

t.test('isBackupError knows every error of the family, and nothing else', async (t) => {
  const own = new BackupError('IO', 'disk.raw', 'no space', { errno: 'ENOSPC' })
  for (const error of [
    own,
    argumentError('requests', 'is 0'),
    new QemuImgError('Check failed', 63),
    ioError('a', Object.assign(new Error('x'), { code: 'EIO' })),
  ]) {
    t.ok(isBackupError(error), error.message)
    t.type(error, BackupError)
    t.equal(error.name, 'BackupError')
  }
  const throwing = new Proxy(new Error('x'), {
    get() {
      throw new Error('trap')
    },
    has() {
      throw new Error('trap')
    },
  })
  for (const other of [
    undefined,
    null,
    'BackupError [IO]: a: b',
    7n,
    new Error('a: b'),
    new TypeError('BackupError [IO]: a: b'),
    { code: 'IO', message: 'a: b' },
    { name: 'BackupError' },
    throwing,
  ]) {
    t.notOk(isBackupError(other))
  }
})

t.test('an error of another copy of the package is one of ours', async (t) => {
  const copy = (await import(`${ERRORS}?copy`)) as typeof import('../lib/errors.ts')
  const error = new copy.BackupError('USAGE', 'a', 'b')
  t.notOk(error instanceof BackupError)
  t.ok(isBackupError(error))
  t.equal(ioError('x', error), error, 'and is passed on unchanged')
})

t.test('structured clones are recognised, and get their fields back', async (t) => {
  const cause = new Error('below')
  for (const error of [
    new BackupError('IO', '/a:b/disk', 'no space: left\nreally', { errno: 'ENOSPC', cause }),
    new BackupError('ABORTED', 'x', 'interrupted'),
    new QemuImgError('Could not open', 1, { cause: new BackupError('NOT_ALLOWED', 'x', 'no') }),
  ]) {
    const clone: unknown = structuredClone(error)
    t.ok(isBackupError(clone))
    if (!isBackupError(clone)) continue
    const { name, code, message, errno } = error
    t.match(clone, { name, code, message })
    t.equal(clone.errno, errno)
  }
  const { port1, port2 } = new MessageChannel()
  const posted = new Promise((resolve) => port2.once('message', resolve))
  port1.postMessage(new BackupError('IN_USE', 'disk', 'is open'))
  const got = await posted
  t.ok(isBackupError(got))
  t.match(got, { code: 'IN_USE', what: 'disk', why: 'is open' })
  port1.close()
})

t.test('an error that ends a worker thread is recognised', async (t) => {
  const code = `import(${JSON.stringify(ERRORS)}).then(({ BackupError }) => {
    throw new BackupError('BAD_IMAGE', 'disk', 'is damaged') })`
  const worker = new Worker(code, { eval: true })
  const error = await new Promise((resolve) => worker.once('error', resolve))
  t.ok(isBackupError(error))
  t.match(error, { code: 'BAD_IMAGE', what: 'disk', why: 'is damaged' })
})

t.test('an aborted run carries the reason of its signal', async (t) => {
  const reason = new Error('the window closes')
  t.equal(abortedError('a', AbortSignal.abort(reason)).cause, reason)
  t.throws(() => throwIfAborted(AbortSignal.abort(reason), 'a'), { code: 'ABORTED', cause: reason })
  t.doesNotThrow(() => throwIfAborted(undefined, 'a'))
  t.doesNotThrow(() => throwIfAborted(new AbortController().signal, 'a'))
})

t.test('QemuImgError has QEMU words, and the fields of what lies behind it', async (t) => {
  const cause = new BackupError('NOT_ALLOWED', 'top', 'is outside', {
    hint: 'allowPaths',
    hintValue: '/srv',
  })
  const error = new QemuImgError("Could not open 'top'", 1, { cause: new Error('x', { cause }) })
  t.match(error, { code: 'NOT_ALLOWED', what: 'top', why: 'is outside', hint: 'allowPaths' })
  t.equal(error.message, "Could not open 'top'")
  t.equal(reasonOf(error), cause)
  t.match(new QemuImgError('Odd'), { code: 'BAD_IMAGE', status: 1, message: 'Odd' })
  t.match(new QemuImgUsageError('Odd'), { code: 'USAGE', status: 1 })
})

t.test('fields that say nothing are not there', async (t) => {
  t.strictSame(Object.keys(new BackupError('IO', 'a', 'b')).sort(), ['code', 'name', 'what', 'why'])
})
