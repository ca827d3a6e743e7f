import { setImmediate as nextTurn } from 'node:timers/promises'
import t from 'tap'
import { listExtents } from '../../../lib/imageio/client/extent-list.ts'
import { openImage } from '../../../lib/imageio/client/image.ts'
import { type DaemonExtent, startImageioDaemon } from '../../support/imageio-daemon.ts'

const COUNT = 20_000
const GRANULE = 512

/** Of every kind, in turn. */
const zero: DaemonExtent[] = Array.from({ length: COUNT }, (_, i) => ({
  start: i * GRANULE,
  length: GRANULE,
  zero: i % 2 === 0,
  hole: i % 4 === 0,
}))

t.test(
  'a list that is too long to keep is asked for again, from where it is used up',
  async (t) => {
    const daemon = await startImageioDaemon(t, { bytes: Buffer.alloc(COUNT * GRANULE), zero })
    for (const connections of [1, 4]) {
      const image = await openImage(daemon.url, 'read', { connections })
      const before = daemon.requests.length
      const found: DaemonExtent[] = []
      const { signal } = new AbortController()
      for await (const batch of listExtents(image, { context: 'zero', signal, maxRuns: 3000 })) {
        // They are used only when nothing is asked for any more: all came, or as many as are kept.
        while (image.connections.free < connections) await nextTurn()
        found.push(...batch.map(({ dirty, ...extent }) => extent))
      }
      t.strictSame(found, zero)
      const asked = daemon.requests.length - before
      t.ok(asked > 2 && asked < COUNT / 3000 + 2, `${asked} times`)
      await image.close()
    }
  },
)

t.test('whoever wants no more extents ends the request', async (t) => {
  const daemon = await startImageioDaemon(t, { bytes: Buffer.alloc(COUNT * GRANULE), zero })
  const image = await openImage(daemon.url, 'read', { connections: 1 })
  const { signal } = new AbortController()
  for await (const batch of listExtents(image, { context: 'zero', signal })) {
    t.ok(batch.length > 0)
    break
  }
  t.equal(image.connections.free, 1, 'its connection is free again')
  const stop = new AbortController()
  const list = listExtents(image, { context: 'zero', signal: stop.signal })
  await list.next()
  stop.abort(new Error('enough'))
  await t.rejects(
    async () => {
      for await (const _ of list);
    },
    { message: 'enough' },
  )
  await image.close()
})
