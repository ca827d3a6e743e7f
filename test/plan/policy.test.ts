/** The tables of what becomes of a mapping, applied to model disks: what is restored is what was read. */
import fc from 'fast-check'
import t from 'tap'
import { type Action, FRESH, OVERLAY } from '../../lib/plan/policy.ts'
import type { Mapping } from '../../lib/source/source.ts'

type Kind = Mapping['kind'] | 'clean'

/** A byte of a disk: what a mapping of this kind says of it, what it is, and what it was at the backup before. */
interface Cell {
  kind: Kind
  now: number
  before: number
}

const KINDS = Object.keys(OVERLAY) as Kind[]

/** Only the kinds that say so read as zero, and only what is clean is as it was before. */
const anyCell: fc.Arbitrary<Cell> = fc
  .record({
    kind: fc.constantFrom(...KINDS),
    content: fc.integer({ min: 0, max: 255 }),
    before: fc.integer({ min: 0, max: 255 }),
  })
  .map(({ kind, content, before }) => {
    if (kind === 'zero' || kind === 'hole') return { kind, now: 0, before }
    return { kind, now: kind === 'clean' ? before : content, before }
  })

/** What the target reads as: what is not recorded shows what lies below. */
function applied(action: Action, now: number, below: number): number {
  return { copy: now, zero: 0, skip: below }[action]
}

t.test('a target over the backup before reads as the disk, whatever changed', async (t) => {
  const property = fc.property(fc.array(anyCell), (cells) =>
    cells.every(({ kind, now, before }) => applied(OVERLAY[kind], now, before) === now),
  )
  await t.resolves(async () => fc.assert(property))
})

t.test('a fresh target reads as the disk', async (t) => {
  const property = fc.property(fc.array(anyCell), (cells) =>
    cells.every(({ kind, now }) => kind === 'clean' || applied(FRESH[kind], now, 0) === now),
  )
  await t.resolves(async () => fc.assert(property))
})

t.test('no more is read or recorded than content needs', async (t) => {
  for (const kind of KINDS) {
    const hasContent = ['data', 'deflate', 'zstd'].includes(kind)
    t.equal(OVERLAY[kind] === 'copy', hasContent, `${kind} is read over a backup`)
    if (kind === 'clean') t.equal(OVERLAY[kind], 'skip', 'what is clean is left to the backup')
    else t.equal(FRESH[kind], hasContent ? 'copy' : 'skip', `${kind} in a fresh target`)
  }
})
