/** Servers are found by what the kernel says of their sockets. */
import { once } from 'node:events'
import { createServer } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { hasEnded, listens } from '../../../lib/machine/qmp/server-directory.ts'
import { socketDirectory } from '../../support/server.ts'

t.test('a server is seen without a connection to it: QEMU 7.2 could hang', async (t) => {
  const directory = socketDirectory(t)
  const path = join(directory, 'nbd of a run')
  t.equal(await listens(path), false)
  const server = createServer(() => t.fail('nobody connects'))
  server.listen(path)
  await once(server, 'listening')
  t.equal(await listens(path), true)
  t.equal(await listens(join(directory, 'nbd')), false, 'another of the same folder')
  t.equal(await hasEnded(path), false)
  server.close()
  await once(server, 'close')
  t.equal(await listens(path), false)
  t.equal(await hasEnded(path), true)
})
