import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openSource } from '../../../lib/index.ts'
import { makeCertificates } from '../../support/certificates.ts'
import { noise } from '../../support/disks.ts'
import { startImageioDaemon } from '../../support/imageio-daemon.ts'

t.test('a server is trusted for its certificate, or not at all', async (t) => {
  const directory = t.testdir({ empty: '', garbage: 'no certificate' })
  const at = (name: string) => join(directory, name)
  const certificates = makeCertificates(at('tls'), 2)
  const others = makeCertificates(at('others'), 2)
  const file = (name: string) => readFileSync(join(certificates, name), 'latin1')
  const tls = { cert: file('server-cert.pem'), key: file('server-key.pem') }
  const daemon = await startImageioDaemon(t, { bytes: noise(4096), tls })
  const named = daemon.url.replace('127.0.0.1', 'localhost')
  const { fingerprint256 } = new X509Certificate(tls.cert)
  const ca = join(certificates, 'ca-cert.pem')
  const opens = async (url: string, options: object) => {
    const source = await openSource(url, options)
    await source.close()
  }
  process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'
  t.teardown(() => delete process.env.NODE_TLS_REJECT_UNAUTHORIZED)

  await opens(named, { ca })
  await opens(daemon.url, { fingerprint: fingerprint256 })
  await opens(daemon.url, { fingerprint: fingerprint256.replaceAll(':', '').toLowerCase() })
  await opens(daemon.url, { fingerprint: fingerprint256, ca })
  await opens(daemon.url, { insecure: true })

  const before = daemon.requests.length
  const untrusted = { code: 'IO', why: /cannot connect: the server's certificate is not trusted/ }
  await t.rejects(opens(named, {}), untrusted, 'the environment has no say')
  await t.rejects(opens(daemon.url, { ca }), untrusted, 'not for this host')
  await t.rejects(opens(named, { ca: join(others, 'ca-cert.pem') }), untrusted)
  await t.rejects(
    opens(named, { fingerprint: fingerprint256, ca: join(others, 'ca-cert.pem') }),
    untrusted,
  )
  await t.rejects(opens(named, { fingerprint: '0'.repeat(64) }), {
    code: 'IO',
    why: /not the one with the fingerprint given: it has one with SHA-256 [0-9a-f]{64}/,
  })
  await t.rejects(opens(named, { ca: at('missing') }), { code: 'IO', what: at('missing') })
  for (const [wrong, argument] of [
    [{ ca: at('empty') }, 'ca'],
    [{ ca: at('garbage') }, 'ca'],
    [{ fingerprint: 'ab:cd' }, 'fingerprint'],
    [{ insecure: true, ca }, 'insecure'],
    [{ insecure: true, fingerprint: fingerprint256 }, 'insecure'],
  ] as const) {
    await t.rejects(opens(named, wrong), { code: 'USAGE', argument })
  }
  t.equal(daemon.requests.length, before, 'the ticket was sent to none of them')

  const plain = await startImageioDaemon(t, { bytes: noise(4096) })
  await t.rejects(opens(plain.url, { ca }), { code: 'USAGE', argument: 'ca' })
  await t.rejects(opens(plain.url, { insecure: true }), { code: 'USAGE', argument: 'insecure' })
  await t.rejects(opens(plain.url.replace('http:', 'https:'), { ca }), {
    code: 'IO',
    why: /does not speak TLS/,
  })
  await t.rejects(opens('disk.raw', { ca }), { code: 'USAGE', argument: 'ca' })
})
