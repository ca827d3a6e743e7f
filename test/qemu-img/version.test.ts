import t from 'tap'
import {
  atLeast,
  hasDraftOptions,
  hasRewrittenOptions,
  NEWEST,
  parseVersion,
} from '../../lib/qemu-img/version.ts'

t.test('versions of qemu-img are parsed, and nothing else is', async (t) => {
  t.strictSame(parseVersion('7.2'), { major: 7, minor: 2 })
  const debian = { major: 7, minor: 2, debian: true }
  t.strictSame(parseVersion('7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)'), debian)
  t.strictSame(parseVersion('7.2.22'), { major: 7, minor: 2 })
  t.strictSame(parseVersion('10.1'), { major: 10, minor: 1 })
  for (const text of ['', 'newest', '8', '8.', '.2', ' 8.2', '12345.1']) {
    t.equal(parseVersion(text), undefined, text)
  }
})

t.test('versions are ordered by their numbers', async (t) => {
  t.ok(atLeast({ major: 8, minor: 2 }, 8, 2))
  t.ok(atLeast({ major: 9, minor: 0 }, 8, 2))
  t.notOk(atLeast({ major: 8, minor: 1 }, 8, 2))
  t.notOk(atLeast({ major: 7, minor: 2 }, 8, 0))
  t.ok(atLeast(NEWEST, 9, 0))
})

t.test('options are as rewritten from 10.1 on, and in a draft in the 10.0 of Debian', async (t) => {
  const of = (text: string) => {
    const version = parseVersion(text)!
    return [hasRewrittenOptions(version), hasDraftOptions(version)]
  }
  t.strictSame(of('10.0'), [false, false])
  t.strictSame(of('10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)'), [true, true])
  t.strictSame(of('10.1'), [true, false])
  t.strictSame(of('9.2.1 (Debian 1:9.2.1+ds-1)'), [false, false])
})
