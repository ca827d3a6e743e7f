import { join } from 'node:path'
import t, { type Test } from 'tap'
import { openSource } from '../../lib/source/open-source.ts'
import { freePort, makeCertificates } from '../support/certificates.ts'
import { runCli } from '../support/cli.ts'
import { startNbdkit } from '../support/nbdkit.ts'
import { qemuImgSame } from '../support/qemu.ts'
import { socketDirectory, startServer, unixUri } from '../support/server.ts'

const KEY = '0123456789abcdef0123456789abcdef'

t.test('a key shared beforehand opens an export', async (t) => {
  const directory = t.testdir({
    disk: 'guest bytes'.repeat(4096),
    keys: `alice:${KEY}\n`,
    wrong: `alice:${KEY.replace(/^0/, 'f')}\n`,
  })
  const disk = join(directory, 'disk')
  const tls = ['--tls=require', `--tls-psk=${join(directory, 'keys')}`]
  const nbdkit = await startNbdkit(t, ...tls, 'file', disk)
  const uri = (keys: string) => {
    return `nbds+unix://alice@/?socket=${nbdkit.socket}&tls-psk-file=${join(directory, keys)}`
  }
  const displayUri = unixUri(nbdkit.socket, '', 'nbds')
  const source = await openSource(uri('keys'))
  t.equal(source.name, displayUri, 'the key file is not for messages')
  t.equal(source.size, 45056)
  await source.close()

  const target = join(directory, 'target.qcow2')
  const { status, stderr } = await runCli(['full', uri('keys'), target])
  t.equal(status, 0, stderr)
  t.ok(qemuImgSame({ path: disk, format: 'raw' }, { path: target, format: 'qcow2' }))

  const refused = { code: 'IO', what: displayUri, why: /^cannot connect: .*gnutls/ }
  await t.rejects(openSource(uri('wrong')), refused)
  const plain = { code: 'IO', why: /^cannot connect: .*TLS/ }
  await t.rejects(openSource(unixUri(nbdkit.socket)), plain, 'the server insists on TLS')
  const open = await startNbdkit(t, 'memory', '1M')
  const none = { code: 'IO', why: /^cannot connect: .*TLS/ }
  await t.rejects(openSource(uri('keys').replace(nbdkit.socket, open.socket)), none, 'so do we')
})

/** `nbdkit` on a TCP port with the certificates of a directory. */
async function startTls(t: Test, certificates: string): Promise<number> {
  const port = await freePort()
  const pidFile = join(socketDirectory(t), 'pid')
  await startServer(
    t,
    'nbdkit',
    [
      ...['--foreground', '--exit-with-parent', '--pidfile', pidFile],
      ...['--port', String(port), '--ipaddr', '127.0.0.1'],
      ...['--tls=require', `--tls-certificates=${certificates}`, 'memory', '1M'],
    ],
    pidFile,
  )
  return port
}

t.test('certificates are checked as the URI asks', async (t) => {
  const directory = t.testdir({ none: {} })
  const good = makeCertificates(join(directory, 'good'), 2)
  const expired = makeCertificates(join(directory, 'expired'), -1)
  const port = await startTls(t, good)
  const uri = (host: string, certificates: string, at = port) => {
    return `nbds://${host}:${at}/?tls-certificates=${certificates}`
  }
  const source = await openSource(uri('localhost', good))
  t.equal(source.name, `nbds://localhost:${port}/`)
  t.equal(source.size, 2 ** 20)
  await source.close()

  const refused = { code: 'IO', why: /^cannot connect: .*certificate/i }
  await t.rejects(openSource(uri('127.0.0.1', good)), refused, 'a name that it is not for')
  const none = join(directory, 'none')
  // libnbd 1.14 would accept any certificate here.
  const why = `no certificate authority in ${none}: ca-cert.pem: no such file or directory`
  const untrusted = { code: 'IO', errno: 'ENOENT', what: `nbds://localhost:${port}/`, why }
  await t.rejects(openSource(uri('localhost', none)), untrusted, 'no authority to trust')
  const home = t.testdirName
  const nowhere = await runCli(['extents', `nbds://localhost:${port}/`], { env: { HOME: home } })
  t.equal(nowhere.status, 1)
  t.match(
    nowhere.stderr,
    /: no certificate or key to verify the server with; add \?tls-certificates=DIR .*\n$/,
  )
  await t.rejects(openSource(uri('localhost', expired)), refused, 'another authority')
  const late = await startTls(t, expired)
  await t.rejects(openSource(uri('localhost', expired, late)), refused, 'expired')
})
