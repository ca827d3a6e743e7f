import t from 'tap'
import { describeError, exitStatus } from '../../lib/cli/describe-error.ts'
import { Interrupted } from '../../lib/cli/signals.ts'
import { BackupError, usageError } from '../../lib/errors.ts'
import { oneLine } from '../../lib/text.ts'

t.test('an error is one line and a status', async (t) => {
  const io = new BackupError('IO', 'disk.raw', 'permission denied')
  const aborted = new BackupError('ABORTED', 'b.qcow2', 'interrupted; what it leaves is incomplete')
  const cases: [error: unknown, line: string, status: number][] = [
    [io, 'disk.raw: permission denied', 1],
    [usageError('--requests', 'must be positive'), '--requests: must be positive', 2],
    [new BackupError('BAD_TARGET', 'a\nb', 'is a\tpipe'), 'a\\x0ab: is a\\x09pipe', 1],
    [new TypeError('x is undefined'), 'internal error: x is undefined (--debug shows where)', 1],
    ['thrown', 'internal error: thrown (--debug shows where)', 1],
    [new Interrupted(130, aborted), 'b.qcow2: interrupted; what it leaves is incomplete', 130],
    [new Interrupted(143, io), 'disk.raw: permission denied', 143],
  ]
  for (const [error, line, status] of cases) {
    t.equal(describeError(error), line)
    t.equal(exitStatus(error), status, line)
  }
})

t.test('oneLine lets nothing through that a terminal obeys', async (t) => {
  t.equal(oneLine('größe 磁盘 💾 a b'), 'größe 磁盘 💾 a b')
  t.equal(oneLine('\x1b[31mred\x7f\x9b'), '\\x1b[31mred\\x7f\\x9b')
  t.equal(oneLine('a\r\nb'), 'a\\x0d\\x0ab')
  t.equal(oneLine('\u2028\u2029\u202egnp.exe'), '\\u{2028}\\u{2029}\\u{202e}gnp.exe')
})
