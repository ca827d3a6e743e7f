import { rmSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { fullBackup } from '../../lib/index.ts'
import { nbdError } from '../../lib/nbd/connection.ts'
import { openSource } from '../../lib/source/open-source.ts'
import { runCli } from '../support/cli.ts'
import { makeRaw, noise } from '../support/disks.ts'
import { startNbdkit } from '../support/nbdkit.ts'
import { qemuImgSame } from '../support/qemu.ts'
import { startQemuNbd } from '../support/qemu-nbd.ts'
import { mappingsOf } from '../support/read-source.ts'
import { type RunningServer, socketDirectory, startServer, unixUri } from '../support/server.ts'

t.test('a server that is not there is an error that names it', async (t) => {
  const socket = join(socketDirectory(t), 'none')
  const missing = { code: 'IO', errno: 'ENOENT', why: 'cannot connect: No such file or directory' }
  await t.rejects(openSource(unixUri(socket)), missing)
  const why = /^cannot connect: localhost:1: .*Connection refused$/
  await t.rejects(openSource('nbd://localhost:1/x'), { code: 'IO', errno: 'ECONNREFUSED', why })
})

t.test('an export that is not there is named', async (t) => {
  const nbdkit = await startNbdkit(
    t,
    ...[
      'eval',
      'get_size=echo 1M',
      'pread=head -c $3 /dev/zero',
      'list_exports=echo NAMES; echo a',
    ],
    'open=[ "$3" = a ] || { echo "ENOENT no such export" >&2; exit 1; }',
  )
  const why = "cannot connect: handshake: server has no export named 'b': No such file or directory"
  await t.rejects(openSource(nbdkit.uri('b')), { code: 'IO', errno: 'ENOENT', why })
  await (await openSource(nbdkit.uri('a'))).close()
})

t.test('what is not an NBD server is named', async (t) => {
  const socket = join(socketDirectory(t), 'http')
  const server = createServer((client) => {
    client.on('error', () => {}).write('HTTP/1.1 400 Bad Request\r\n\r\n')
  })
  await new Promise<void>((resolve) => server.listen(socket, resolve))
  t.teardown(() => server.close())
  await t.rejects(openSource(unixUri(socket)), { code: 'IO', why: /^cannot connect: \S.+$/ })
})

t.test('a server that is silent fails after the timeout', async (t) => {
  const directory = socketDirectory(t)
  const server = createServer(() => {})
  await new Promise<void>((resolve) => server.listen(join(directory, 'hang'), resolve))
  t.teardown(() => server.close())
  const uri = unixUri(join(directory, 'hang'))
  const silent = (doing: string) => ({
    code: 'IO',
    errno: 'ETIMEDOUT',
    why: new RegExp(`^${doing}: no answer within 0.3 s \\(`),
    hint: 'timeoutMs',
  })
  await t.rejects(openSource(uri, { timeoutMs: 300 }), silent('cannot connect'))

  const slow = await startNbdkit(t, '--filter=delay', 'memory', '1M', 'delay-extents=3')
  const source = await openSource(slow.uri(), { timeoutMs: 300 })
  t.teardown(() => source.close())
  await t.rejects(mappingsOf(source), silent('block status of 1048576 bytes at 0'))
})

t.test('a server that is silent over TCP, from the start or after its greeting', async (t) => {
  for (const greeting of ['', 'NBDMAGICIHAVEOPT\0\x03']) {
    const server = createServer((client) => {
      client.on('error', () => {}).write(greeting, 'latin1')
      t.teardown(() => client.destroy())
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    t.teardown(() => server.close())
    const uri = `nbd://127.0.0.1:${(server.address() as AddressInfo).port}/disk`
    const silent = { code: 'IO', errno: 'ETIMEDOUT', what: uri, hint: 'timeoutMs' }
    await t.rejects(openSource(uri, { timeoutMs: 300 }), silent)
    const target = join(t.testdir(), 'target')
    await t.rejects(fullBackup(uri, target, { timeoutMs: 300 }), silent)
    const { status, stderr } = await runCli(['extents', '--timeout', '1', uri])
    t.equal(status, 1)
    t.match(stderr, /^qcow2-backup: nbd:[^\n]*: cannot connect: no answer within 1 s [^\n]*\n$/)
  }
})

t.test('names of exports as long as the protocol has them', async (t) => {
  const dir = t.testdir()
  const disk = makeRaw(join(dir, 'disk'), 65536, [{ at: 0, bytes: noise(65536) }])
  for (const name of ['n'.repeat(4096), 'ü'.repeat(2048), '/?#%:@'.repeat(682)]) {
    const { uri } = await startQemuNbd(t, disk, { format: 'raw', name })
    const target = join(dir, 'target')
    const { dataBytes } = await fullBackup(uri, target, { manifest: true, force: true })
    t.equal(dataBytes, 65536)
    t.ok(qemuImgSame({ path: target, format: 'qcow2' }, { path: disk, format: 'raw' }))
  }
  const { uri } = await startQemuNbd(t, disk, { format: 'raw' })
  const long = uri.replace('///', `///${'n'.repeat(4097)}`)
  await t.rejects(openSource(long), { code: 'IO', what: long, why: /too long/ })
})

t.test('a server that refuses to say what it holds: all is data, with a note', async (t) => {
  const nbdkit = await startNbdkit(
    t,
    ...['--filter=error', 'memory', '1M', 'error-extents=EIO', 'error-extents-rate=100%'],
  )
  const source = await openSource(nbdkit.uri())
  t.teardown(() => source.close())
  t.match(await mappingsOf(source), [{ kind: 'data', start: 0, length: 2 ** 20 }])
  const why = /block status of 1048576 bytes at 0: Input\/output error/
  t.match(source.notes, [why])
})

t.test('a server that goes away is connected to again, if it is the same', async (t) => {
  const directory = socketDirectory(t)
  const socket = join(directory, 'nbd')
  let servers = 0
  const serve = (size: string) => {
    const pidFile = join(directory, `pid-${servers++}`)
    const fixed = ['--foreground', '--unix', socket, '--pidfile', pidFile]
    return startServer(t, 'nbdkit', [...fixed, 'memory', size], pidFile)
  }
  // By SIGTERM it would wait for its clients.
  const end = async (server: RunningServer) => {
    await server.stop('SIGKILL')
    rmSync(socket)
  }

  const first = await serve('1M')
  const source = await openSource(unixUri(socket))
  t.teardown(() => source.close())
  const mappings = await mappingsOf(source)
  await end(first)
  const second = await serve('1M')
  t.strictSame(await mappingsOf(source), mappings, 'back at once')

  await end(second)
  const asking = mappingsOf(source)
  const third = new Promise<RunningServer>((resolve) => {
    setTimeout(() => resolve(serve('1M')), 300)
  })
  t.strictSame(await asking, mappings, 'back after a while')

  await end(await third)
  const fourth = await serve('2M')
  const other = { code: 'SOURCE_CHANGED', why: /came back with 2097152 bytes .* 1048576 were/ }
  await t.rejects(mappingsOf(source), other)

  await end(fourth)
  await t.rejects(mappingsOf(source), { code: 'IO', errno: 'ENOENT', why: /No such file/ })
})

t.test('closed while it waits for the server to come back', async (t) => {
  const nbdkit = await startNbdkit(t, 'memory', '1M')
  const source = await openSource(nbdkit.uri())
  await nbdkit.stop('SIGKILL')
  const asking = mappingsOf(source)
  asking.catch(() => undefined)
  await source.close()
  await t.rejects(asking, { code: 'IO' })
})

t.test('without libnbd the message names the package', async (t) => {
  // The loader takes this one for the library, and fails.
  const path = t.testdir({ 'libnbd.so.0': 'not a library' })
  const { status, stderr } = await runCli(['extents', 'nbd://localhost:1/x'], {
    env: { LD_LIBRARY_PATH: path },
  })
  t.equal(status, 1)
  t.equal(
    stderr,
    'qcow2-backup: nbd://localhost:1/x: NBD needs libnbd, which is not installed; on Debian: ' +
      'apt install libnbd0\n',
  )
})

t.test('words of libnbd that repeat the URI are shortened', async (t) => {
  const uri = 'nbd://u:secret@h/x'
  const server = { uri, displayUri: 'nbd://h/x', timeoutMs: 1 }
  const context = `nbd_aio_connect_uri: unable to parse URI: ${uri}: Invalid argument`
  const failure = Object.assign(new Error(`${context}: Invalid argument`), { context })
  const why = 'cannot connect: unable to parse URI: nbd://h/x: Invalid argument'
  t.match(nbdError(server, 'cannot connect', failure), { what: 'nbd://h/x', why })
})
