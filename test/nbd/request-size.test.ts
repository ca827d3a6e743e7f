import { join } from 'node:path'
import t from 'tap'
import { incrementalBackup } from '../../lib/backup/incremental.ts'
import { openSource } from '../../lib/source/open-source.ts'
import { CHUNK, startNbdServer, statusChunk } from '../support/nbd-server.ts'
import { qemuImg } from '../support/qemu.ts'

t.test('no request is larger than requestSize, or crosses a multiple of it', async (t) => {
  const size = 2 ** 20
  const directory = t.testdir()
  const [backing, target] = ['base.qcow2', 'next.qcow2'].map((name) => join(directory, name))
  qemuImg('create', '-q', '-f', 'qcow2', backing, `${size}`)
  const server = await startNbdServer(t, {
    size,
    answer({ type, length }, send) {
      if (type !== 'status') return false
      // Clean, dirty: from 12 KiB to 300 KiB.
      send(CHUNK.status, statusChunk(1, 12288, 0, 294912, 1, length - 307200, 0))
      return true
    },
  })
  const options = { bitmap: 'since', backing, clusterSize: 4096, requestSize: 65536 }
  const { dataBytes, zeroBytes } = await incrementalBackup(server.uri, target, options)
  t.equal(dataBytes + zeroBytes, 294912)
  const reads = server.requests.filter(({ type }) => type === 'read')
  t.equal(Math.min(...reads.map(({ offset }) => offset)), 12288)
  t.strictSame(
    reads.filter(({ offset, length }) => offset % 65536 > 65536 - length),
    [],
  )
  t.ok(reads.length >= 5)
})

t.test('with requestSize a server is not asked where data is', async (t) => {
  const server = await startNbdServer(t, { size: 2 ** 20 })
  const source = await openSource(server.uri, { requestSize: 65536 })
  t.teardown(() => source.close())
  t.equal(source.canExtents, false)
  for await (const batch of source.mappings()) t.match(batch, [{ kind: 'data', length: 2 ** 20 }])
  t.strictSame(server.requests, [])
  const file = join(t.testdir(), 'file')
  qemuImg('create', '-q', '-f', 'raw', file, '1M')
  const refused = { code: 'USAGE', message: 'requestSize: is only supported for NBD sources' }
  await t.rejects(openSource(file, { requestSize: 65536 }), refused)
})
