import t from 'tap'
import { copyError } from '../../lib/copy/failure.ts'
import { BackupError } from '../../lib/errors.ts'
import type { Source } from '../../lib/source/source.ts'

const SOURCE = { name: 'top', stores: [{ path: 'top' }, { path: 'base' }] } as unknown as Source

/** An error as the addon makes it. */
function nativeError(context: string, reason: string, fields: object): Error {
  return Object.assign(new Error(`${context}: ${reason}`), { context, ...fields })
}

t.test('each failure in words that name the file', async (t) => {
  const eio = { code: 'EIO', file: 1, offset: 4096 }
  const cases: [fields: object, code: string, message: string][] = [
    [{ ...eio, failure: 1 }, 'IO', 'base: read at 4096: input/output error'],
    [
      { ...eio, failure: 2 },
      'SOURCE_CHANGED',
      'base: ends at or before offset 4096: it shrank while it was read',
    ],
    [{ ...eio, failure: 3 }, 'BAD_IMAGE', 'base: the compressed cluster at offset 4096 is damaged'],
    [{ code: 'ENOSPC', failure: 4 }, 'IO', 'target: step: no space left on device'],
    [{ code: 'EFBIG' }, 'IO', 'target: step: file too large for this file system or limit'],
    [{ code: 'ECANCELED', failure: 5 }, 'ABORTED', 'target: interrupted'],
  ]
  for (const [fields, code, message] of cases) {
    const error = nativeError('step', 'whatever strerror says', fields)
    const told = copyError(error, SOURCE, 'target')
    t.match(told, { code, message })
    t.equal(told.cause, error)
  }
})

t.test('a reason without words of ours was once told with its context twice', async (t) => {
  const error = nativeError('write at 512', 'Invalid argument', { code: 'EINVAL', failure: 4 })
  t.equal(copyError(error, SOURCE, 'target').message, 'target: write at 512: Invalid argument')
})

t.test('an error without a context was once told as undefined', async (t) => {
  const memory = Object.assign(new Error('out of memory'), { code: 'ENOMEM' })
  t.match(copyError(memory, SOURCE, 'target'), { code: 'IO', message: 'target: out of memory' })
  const fault = new TypeError('fault of ours')
  t.match(copyError(fault, SOURCE, 'target'), { message: 'target: fault of ours', cause: fault })
})

t.test('errors of ours pass unchanged', async (t) => {
  const error = new BackupError('BAD_IMAGE', 'top', 'is bad')
  t.equal(copyError(error, SOURCE, 'target'), error)
})
