import { spawnSync } from 'node:child_process'
import { statSync, symlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { openSource } from '../../lib/source/open-source.ts'
import { qemuImg } from '../support/qemu.ts'
import { socketDirectory } from '../support/server.ts'

t.test('what is not a disk is refused', async (t) => {
  const dir = t.testdir({ sub: {} })
  const fifo = join(dir, 'fifo')
  spawnSync('mkfifo', [fifo])
  const socket = join(socketDirectory(t), 'socket')
  const server = createServer().listen(socket)
  await new Promise((resolve) => server.once('listening', resolve))
  t.teardown(() => server.close())

  const kind = 'is neither a regular file nor a block device'
  await t.rejects(openSource(fifo), { code: 'UNSUPPORTED', what: fifo, why: kind })
  await t.rejects(openSource(socket), { code: 'UNSUPPORTED', what: socket, why: kind })
  await t.rejects(openSource('/dev/null'), { code: 'UNSUPPORTED', why: kind })
  const sub = join(dir, 'sub')
  await t.rejects(openSource(sub), {
    code: 'IO',
    errno: 'EISDIR',
    message: `${sub}: is a directory`,
  })
  const missing = join(dir, 'missing')
  await t.rejects(openSource(missing), {
    code: 'IO',
    errno: 'ENOENT',
    message: `${missing}: no such file or directory`,
  })
})

t.test('other URLs than those of images are refused', async (t) => {
  for (const location of ['http://host/disk', 'https://host/disk', 'https://host/images/']) {
    await t.rejects(openSource(location), { code: 'USAGE', why: /not the URL of an image/ })
  }
})

t.test('the format of a source is recognised, or insisted on', async (t) => {
  const dir = t.testdir()
  const image = join(dir, 'disk')
  qemuImg('create', '-q', '-f', 'qcow2', image, '1M')
  const probed = await openSource(image)
  t.equal(probed.format, 'qcow2')
  t.equal(probed.size, 2 ** 20)
  await probed.close()
  const raw = join(dir, 'raw')
  writeFileSync(raw, Buffer.alloc(4096))
  await t.rejects(openSource(raw, { format: 'qcow2' }), {
    code: 'BAD_IMAGE',
    message: `${raw}: image is not in qcow2 format`,
  })
})

t.test('a file is known by what it is, not by its name', async (t) => {
  const dir = t.testdir({ disk: 'x' })
  symlinkSync('disk', join(dir, 'link'))
  const a = await openSource(join(dir, 'disk'))
  const b = await openSource(join(dir, 'link'))
  t.equal(a.stores[0].identity, b.stores[0].identity)
  const { dev, ino } = statSync(join(dir, 'disk'))
  t.equal(a.stores[0].identity, `${dev}:${ino}`)
  await a.close()
  await b.close()
})

t.test('closing twice is fine, and a failed open leaves nothing open', async (t) => {
  const dir = t.testdir()
  const source = join(dir, 'top.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', '-u', '-b', 'missing', '-F', 'raw', source, '1M')
  const open = () => spawnSync('ls', ['-l', `/proc/${process.pid}/fd`], { encoding: 'utf8' }).stdout
  await t.rejects(openSource(source), { code: 'IO', errno: 'ENOENT' })
  t.notMatch(open(), 'top.qcow2')
  const empty = await openSource(source, { format: 'raw' })
  t.match(open(), 'top.qcow2')
  await empty.close()
  await empty.close()
  t.notMatch(open(), 'top.qcow2')
})

t.test('options of servers are refused for files', async (t) => {
  const disk = join(t.testdir({ disk: 'x' }), 'disk')
  const what = (code: string, why: string) => ({ code: 'USAGE', message: `${code}: ${why}` })
  const connections = what('connections', 'is only supported for NBD and imageio sources')
  await t.rejects(openSource(disk, { connections: 1 }), connections)
  const timeout = what('timeoutMs', 'is only supported for NBD and imageio sources')
  await t.rejects(openSource(disk, { timeoutMs: 1 }), timeout)
})
