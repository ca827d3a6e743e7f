import fc from 'fast-check'
import t from 'tap'
import { alignDirty, type CleanRange } from '../../lib/plan/align.ts'
import type { DirtyMapping, Mapping } from '../../lib/source/source.ts'
import { batched, bytesOf, contiguousMappings } from '../support/mappings.ts'

async function collect(
  mappings: readonly DirtyMapping[],
  clusterSize: number,
  backingSize: number,
  batch = 100,
): Promise<(Mapping | CleanRange)[]> {
  const all: (Mapping | CleanRange)[] = []
  const batches = alignDirty(batched(mappings, batch), clusterSize, backingSize)
  for await (const one of batches) all.push(...one)
  return all
}

/** Mappings in short: each letter is a byte, upper case if dirty. d data, z zero. */
function marked(text: string): DirtyMapping[] {
  return (text.match(/(.)\1*/g) ?? []).reduce<DirtyMapping[]>((mappings, run) => {
    const start = mappings.reduce((sum, { length }) => sum + length, 0)
    const dirty = run === run.toUpperCase()
    const length = run.length
    const mapping: DirtyMapping =
      run[0].toLowerCase() === 'd'
        ? { kind: 'data', start, length, store: 0, offset: 1000 + start, dirty }
        : { kind: 'zero', start, length, dirty }
    mappings.push(mapping)
    return mappings
  }, [])
}

/** What became of each byte: d data, z zero, `-` clean. */
async function aligned(text: string, clusterSize: number, backingSize = 1000): Promise<string> {
  const out = await collect(marked(text), clusterSize, backingSize)
  const letters = { data: 'd', zero: 'z', clean: '-' } as Record<string, string>
  return out.map(({ kind, length }) => letters[kind].repeat(length)).join('')
}

t.test('a cluster with any dirty byte is wholly dirty', async (t) => {
  t.equal(await aligned('dddd dddd'.replace(' ', ''), 4), '--------')
  t.equal(await aligned('dDddddzz', 4), 'dddd----')
  t.equal(await aligned('dddDzzzz', 4), 'dddd----')
  t.equal(await aligned('ddddZzzd', 4), '----zzzd', 'filled with what is really there')
  t.equal(await aligned('zzDDDDzzdddd', 4), 'zzddddzz----')
  t.equal(await aligned('dZddddDddddd', 4), 'dzddd' + 'ddd----')
  t.equal(await aligned('ddddDDDDdddd', 4), '----dddd----', 'no more than that')
})

t.test('the last cluster may be cut short', async (t) => {
  t.equal(await aligned('dddddd', 4), '------')
  t.equal(await aligned('dddddD', 4), '----dd')
  t.equal(await aligned('dD', 4), 'dd')
})

t.test('a disk that grew: all past the end of the backing file is dirty', async (t) => {
  t.equal(await aligned('dddddddddddd', 4, 8), '--------dddd')
  t.equal(await aligned('dddddddzzzzz', 4, 8), '-------' + '-' + 'zzzz')
  t.equal(await aligned('dddddddddddd', 4, 5), '----dddddddd', 'and the cluster that it ends in')
  t.equal(await aligned('dddddddddddd', 4, 0), 'dddddddddddd')
  t.equal(await aligned('dddddddddddd', 4, 12), '------------')
})

t.test('aligned mappings agree with a model of every byte', async (t) => {
  const property = fc.asyncProperty(
    contiguousMappings,
    fc.array(fc.boolean(), { minLength: 20, maxLength: 20 }),
    fc.constantFrom(1, 2, 8, 16, 64),
    fc.nat(450),
    fc.integer({ min: 1, max: 5 }),
    async (mappings, flags, clusterSize, backingSize, batch) => {
      const source = mappings.map((mapping, i): DirtyMapping => ({ ...mapping, dirty: flags[i] }))
      const dirty = source.flatMap((one) => Array.from({ length: one.length }, () => one.dirty))
      const clusterDirty = (at: number) => {
        const first = Math.floor(at / clusterSize) * clusterSize
        const cluster = dirty.slice(first, first + clusterSize)
        return cluster.some((one, i) => one || first + i >= backingSize)
      }
      const expected = bytesOf(source).map((byte, at) => (clusterDirty(at) ? byte : `${at} clean`))
      t.strictSame(bytesOf(await collect(source, clusterSize, backingSize, batch)), expected)
    },
  )
  await fc.assert(property, { numRuns: 300 })
})

t.test('little is held back, whatever the clusters', async (t) => {
  const mappings = Array.from({ length: 40_000 }, (_, i): DirtyMapping => {
    return { kind: i % 2 ? 'zero' : 'hole', start: i * 512, length: 512, dirty: false }
  })
  let done = 0
  const batches = alignDirty(batched(mappings, 5000), 2 ** 21, 2 ** 40)
  for await (const batch of batches) {
    t.equal(batch.length, 1, 'clean neighbours are one')
    t.equal(batch[0].start, done)
    done += batch[0].length
  }
  t.equal(done, 40_000 * 512)
})
