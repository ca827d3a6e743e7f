import { join } from 'node:path'
import t from 'tap'
import { type CustomSource, openSource } from '../../lib/index.ts'
import { makeRaw } from '../support/disks.ts'
import { startNbdkit } from '../support/nbdkit.ts'

t.setTimeout(180_000)

const MIB = 2 ** 20

/** What a source says that it can. */
async function capabilitiesOf(location: string | CustomSource) {
  const source = await openSource(location)
  const { canExtents, canDetectZeroes, canDiscard } = source
  let discards = true
  try {
    source.discarding(65536)
  } catch {
    discards = false
  }
  await source.close()
  return { canExtents, canDetectZeroes, canDiscard, discards }
}

t.test('files find zeroes by reading, and nothing is discarded there', async (t) => {
  const disk = makeRaw(join(t.testdir(), 'disk.raw'), MIB, [])
  const can = { canExtents: true, canDetectZeroes: true, canDiscard: false, discards: false }
  t.strictSame(await capabilitiesOf(disk), can)
})

t.test('exports can what their server can', async (t) => {
  const can = { canExtents: true, canDetectZeroes: false, canDiscard: true, discards: true }
  const not = { canDiscard: false, discards: false }
  const capabilities = async (options: string[], ...parameters: string[]) => {
    const server = await startNbdkit(t, ...options, 'memory', '1M', ...parameters)
    return await capabilitiesOf(server.uri())
  }
  t.strictSame(await capabilities([]), can)
  t.strictSame(await capabilities(['--readonly']), { ...can, ...not })
  t.strictSame(await capabilities(['--no-sr']), { ...can, canExtents: false })
  const single = await capabilities(['--filter=multi-conn'], 'multi-conn-mode=disable')
  t.strictSame(single, { ...can, ...not }, 'one client only')
})

t.test('sources of the calling program discard if they have a function for it', async (t) => {
  const source: CustomSource = {
    name: 'custom',
    size: MIB,
    extents: () => [{ start: 0, length: MIB, zero: true }],
    read: async (_start, length) => new Uint8Array(length),
  }
  const can = { canExtents: true, canDetectZeroes: false, canDiscard: false, discards: false }
  t.strictSame(await capabilitiesOf(source), can)
  const discarding = { ...source, discard: async () => {} }
  t.strictSame(await capabilitiesOf(discarding), { ...can, canDiscard: true, discards: true })
})
