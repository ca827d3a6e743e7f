/** What a commit changes, fitted to clusters: against a model with a mark for each sector. */
import fc from 'fast-check'
import t from 'tap'
import { commonUnit } from '../../lib/copy/patch.ts'
import { type Change, changesOf, covers, isZero } from '../../lib/maintain/changes/changes.ts'
import { joined, stretches } from '../../lib/maintain/changes/placed.ts'
import type { Mapping } from '../../lib/source/source.ts'

const SECTOR = 512

/** Sectors by what is said of each: nothing, zero, or the sector of a file that they are. */
function markOf(mappings: readonly Mapping[], sectors: number): (number | 'zero' | undefined)[] {
  const marks: (number | 'zero' | undefined)[] = new Array(sectors).fill(undefined)
  for (const mapping of mappings) {
    for (let at = 0; at < mapping.length; at += SECTOR) {
      const sector = (mapping.start + at) / SECTOR
      if (marks[sector] !== undefined) throw new Error(`sector ${sector} twice`)
      marks[sector] = 'offset' in mapping ? (mapping.offset + at) / SECTOR : 'zero'
    }
  }
  return marks
}

/** Ordered mappings of a disk, with gaps. */
const disks = fc
  .array(
    fc.record({
      kind: fc.constantFrom('zero', 'hole', 'data', 'gap'),
      sectors: fc.integer({ min: 1, max: 40 }),
      offset: fc.nat(1000),
    }),
    { maxLength: 40 },
  )
  .map((runs) => {
    const mappings: Mapping[] = []
    let start = 0
    for (const { kind, sectors, offset } of runs) {
      const length = sectors * SECTOR
      if (kind === 'data') mappings.push({ kind, start, length, store: 0, offset: offset * SECTOR })
      else if (kind !== 'gap') mappings.push({ kind: kind as 'zero' | 'hole', start, length })
      start += length
    }
    return { mappings, size: start }
  })

async function changes(mappings: Mapping[], batch: number, cluster: number, size: number) {
  async function* batches() {
    for (let i = 0; i < mappings.length; i += batch) yield mappings.slice(i, i + batch)
  }
  const all: Change[] = []
  for await (const some of changesOf(batches(), cluster, size)) all.push(...some)
  return all
}

t.test('every byte is in one change, zeroes are whole clusters, in order', async () => {
  await fc.assert(
    fc.asyncProperty(
      disks,
      fc.constantFrom(512, 1024, 4096),
      fc.integer({ min: 1, max: 5 }),
      fc.nat(20),
      async ({ mappings, size }, cluster, batch, more) => {
        const disk = size + more * SECTOR
        const found = await changes(mappings, batch, cluster, disk)
        const flat = found.flatMap((change): Mapping[] =>
          change.kind === 'zero' ? [{ ...change }] : change.mappings,
        )
        fc.pre(disk > 0)
        if (
          JSON.stringify(markOf(flat, disk / SECTOR)) !==
          JSON.stringify(markOf(mappings, disk / SECTOR))
        ) {
          throw new Error('not the same bytes')
        }
        let end = -1
        for (const change of found) {
          if (change.start <= end || change.start % cluster !== 0) throw new Error('order')
          if (change.kind === 'zero') {
            end = change.start + change.length - 1
            if ((end + 1) % cluster !== 0 && end + 1 !== disk) throw new Error('part of a cluster')
          } else {
            end = Math.min(change.start + cluster, disk) - 1
            const whole = covers(change.mappings, change.start, end + 1)
            if (whole && change.mappings.every(isZero)) throw new Error('zeroes, not told as such')
          }
        }
      },
    ),
  )
})

t.test('mappings are joined by their place, and say the same', async () => {
  await fc.assert(
    fc.property(disks, ({ mappings, size }) => {
      const shuffled = [...mappings].reverse()
      const all = joined(shuffled)
      const same = JSON.stringify(markOf(all, size / SECTOR))
      if (same !== JSON.stringify(markOf(mappings, size / SECTOR))) throw new Error('not the same')
      if (all.length > mappings.length) throw new Error('more than before')
    }),
  )
})

t.test('neighbouring clusters become one change', (t) => {
  t.strictSame(stretches([1, 2, 3, 7, 9, 10], 512, 1024), [
    { start: 512, length: 1536 },
    { start: 4608, length: 1024 },
  ])
  t.strictSame(stretches([], 512, 0), [])
  t.end()
})

t.test('the unit of numbers divides every offset', (t) => {
  t.equal(commonUnit([]), 65536)
  t.equal(commonUnit([2 ** 40, 3 * 65536, 0]), 65536)
  t.equal(commonUnit([4096 * 3, 512 * 8]), 4096)
  t.equal(commonUnit([65536, 512 * 3]), 512)
  t.end()
})
