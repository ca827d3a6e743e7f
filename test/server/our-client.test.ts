/** Our client against our server: the mission's flow, from a full backup to a restore. */
import { createServer } from 'node:http'
import { join } from 'node:path'
import t from 'tap'
import { fullBackup, incrementalBackup, openSource, restore } from '../../lib/index.ts'
import { startImages } from '../support/image-server.ts'
import { qemuImg, qemuImgCheck, qemuImgSame, qemuIo } from '../support/qemu.ts'
import { startQemuNbd } from '../support/qemu-nbd.ts'

const KIB = 1024
const MIB = 2 ** 20
const SIZE = 64 * MIB
/** What is written before the bitmap begins, and zeroed after. */
const WRITTEN = 15 * MIB + 256 * KIB

for (const over of ['file', 'nbd'] as const) {
  t.test(`written, then a bitmap, then zeroed: over ${over}`, async (t) => {
    const directory = t.testdir()
    const at = (name: string) => join(directory, name)
    const disk = at('disk.qcow2')
    const images = await startImages(t)
    /** The URL of a new ticket, for as long as `use` takes. */
    const serving = async <T>(dirty: boolean, use: (url: string) => Promise<T>): Promise<T> => {
      const server =
        over === 'nbd'
          ? await startQemuNbd(t, disk, { bitmaps: dirty ? ['sunday'] : [] })
          : undefined
      const url = server?.uri ?? `file://${disk}`
      const ticket = await images.ticket({ url, size: SIZE, dirty })
      try {
        return await use(`http://127.0.0.1:${images.port}/images/${ticket}`)
      } finally {
        await images.tickets.cancel(ticket)
        await server?.stop()
      }
    }
    qemuImg('create', '-q', '-f', 'qcow2', disk, String(SIZE))
    qemuIo(disk, `write -P 7 0 ${WRITTEN}`, 'write -P 8 40M 1M')
    const full = at('sunday.qcow2')
    const backed = await serving(false, (url) => fullBackup(url, full, { verify: true }))
    t.match(backed, { dataBytes: WRITTEN + MIB, verified: true })
    t.equal(backed.notes, undefined)
    t.ok(qemuImgSame({ path: full, format: 'qcow2' }, { path: disk, format: 'qcow2' }))

    qemuImg('bitmap', '--add', disk, 'sunday')
    qemuIo(disk, `write -z 0 ${WRITTEN}`, 'write -P 9 50M 128k')
    const increment = at('monday.qcow2')
    const changed = await serving(true, async (url) => {
      const source = await openSource(url, { bitmap: 'sunday' })
      const [first] = (await source.dirtyMappings().next()).value!
      t.match(first, { start: 0, length: WRITTEN, kind: 'zero', dirty: true })
      await source.close()
      return await incrementalBackup(url, increment, { backing: full })
    })
    t.match(changed, { dataBytes: 128 * KIB, zeroBytes: WRITTEN })
    t.ok(changed.fileSize < MIB, `${changed.fileSize} bytes`)
    t.equal(qemuImgCheck(increment).status, 0)
    t.ok(qemuImgSame({ path: increment, format: 'qcow2' }, { path: disk, format: 'qcow2' }))
    await serving(false, async (url) => {
      await t.rejects(incrementalBackup(url, at('no.qcow2'), { backing: full }), {
        code: 'BAD_BITMAP',
      })
    })

    // Pushed back, into an image that gets its name when its ticket ends.
    const restored = at('restored.qcow2')
    const ops: ['write'] = ['write']
    const url = `file://${restored}`
    const id = await images.ticket({ url, size: SIZE, ops, format: 'qcow2' })
    await restore(increment, `http://127.0.0.1:${images.port}/images/${id}`)
    await images.tickets.cancel(id)
    t.equal(qemuImgCheck(restored).status, 0)
    t.ok(qemuImgSame({ path: restored, format: 'qcow2' }, { path: disk, format: 'qcow2' }))
  })
}

t.test('from the same host the data goes over the Unix socket', async (t) => {
  const directory = t.testdir()
  const disk = join(directory, 'disk.qcow2')
  qemuImg('create', '-q', '-f', 'qcow2', disk, '1M')
  qemuIo(disk, 'write -P 7 0 512k')
  const unixSocket = `\0qcow2-backup-test-${process.pid}`
  const images = await startImages(t, { unixSocket })
  let connections = 0
  const near = createServer(images.handler).on('connection', () => connections++)
  await new Promise<void>((resolve) => near.listen({ path: unixSocket }, resolve))
  t.teardown(() => {
    near.closeAllConnections()
    near.close()
  })
  const id = await images.ticket({ url: `file://${disk}`, size: MIB })
  const full = join(directory, 'full.qcow2')
  await fullBackup(`http://127.0.0.1:${images.port}/images/${id}`, full)
  t.ok(connections > 0)
  t.ok(qemuImgSame({ path: full, format: 'qcow2' }, { path: disk, format: 'qcow2' }))
})
