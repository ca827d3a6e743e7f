import fc from 'fast-check'
import t from 'tap'
import type { CleanRange } from '../../lib/plan/align.ts'
import { type Action, FRESH, OVERLAY } from '../../lib/plan/policy.ts'
import { COLUMNS, packRows, ROW } from '../../lib/plan/rows.ts'
import type { Mapping } from '../../lib/source/source.ts'

/** The rows of an array, each as the numbers of its columns. */
function rowsOf(packed: Float64Array): number[][] {
  const rows: number[][] = []
  for (let at = 0; at < packed.length; at += COLUMNS) {
    rows.push([...packed.subarray(at, at + COLUMNS)])
  }
  return rows
}

t.test('each kind of mapping becomes its row', async (t) => {
  const compressed = { store: 3, offset: 700, size: 1024, clusterSize: 4096, within: 512 }
  const mappings: Mapping[] = [
    { kind: 'data', start: 0, length: 10, store: 2, offset: 99 },
    { kind: 'deflate', start: 10, length: 20, ...compressed },
    { kind: 'zero', start: 30, length: 40 },
    { kind: 'zstd', start: 70, length: 50, ...compressed },
    { kind: 'hole', start: 120, length: 60 },
  ]
  t.strictSame(rowsOf(packRows(mappings, FRESH)), [
    [ROW.data, 0, 10, 2, 99, 0, 0, 0],
    [ROW.deflate, 10, 20, 3, 700, 1024, 4096, 512],
    [ROW.skip, 30, 40, 0, 0, 0, 0, 0],
    [ROW.zstd, 70, 50, 3, 700, 1024, 4096, 512],
    [ROW.skip, 120, 60, 0, 0, 0, 0, 0],
  ])
})

t.test('over a backing file zeroes are recorded, and what is clean is not', async (t) => {
  const mappings: (Mapping | CleanRange)[] = [
    { kind: 'clean', start: 0, length: 5 },
    { kind: 'data', start: 5, length: 10, store: 2, offset: 99 },
    { kind: 'zero', start: 15, length: 20 },
    { kind: 'hole', start: 35, length: 1 },
    { kind: 'clean', start: 36, length: 4 },
  ]
  t.strictSame(rowsOf(packRows(mappings, OVERLAY)), [
    [ROW.skip, 0, 5, 0, 0, 0, 0, 0],
    [ROW.data, 5, 10, 2, 99, 0, 0, 0],
    [ROW.zero, 15, 21, 0, 0, 0, 0, 0],
    [ROW.skip, 36, 4, 0, 0, 0, 0, 0],
  ])
})

t.test('what is stored nowhere cannot be copied', async (t) => {
  const mappings: Mapping[] = [{ kind: 'hole', start: 0, length: 1 }]
  t.throws(() => packRows(mappings, { ...FRESH, hole: 'copy' }), /a hole run cannot be copied/)
})

t.test('no mappings, no rows', async (t) => {
  t.equal(packRows([], FRESH).length, 0)
})

t.test('skipped neighbours become one row, whatever they were', async (t) => {
  const mappings: Mapping[] = [
    { kind: 'hole', start: 0, length: 1 },
    { kind: 'zero', start: 1, length: 2 },
    { kind: 'hole', start: 3, length: 2 ** 45 },
  ]
  t.strictSame(rowsOf(packRows(mappings, FRESH)), [[ROW.skip, 0, 2 ** 45 + 3, 0, 0, 0, 0, 0]])
})

t.test('data that are neighbours in the guest stay apart: they may lie anywhere', async (t) => {
  const mappings: Mapping[] = [
    { kind: 'data', start: 0, length: 1, store: 0, offset: 0 },
    { kind: 'data', start: 1, length: 1, store: 0, offset: 500 },
  ]
  t.equal(rowsOf(packRows(mappings, FRESH)).length, 2)
})

/** Offsets as large as they come: the largest image QEMU opens is 2^63 bytes, numbers end at 2^53. */
const offset = fc.integer({ min: 0, max: 2 ** 53 - 1 })
const place = { store: fc.nat(200), offset }
const anyMapping = fc.oneof(
  fc.record({ kind: fc.constantFrom('zero', 'hole') }),
  fc.record({ kind: fc.constant('data'), ...place }),
  fc.record({
    kind: fc.constantFrom('deflate', 'zstd'),
    ...place,
    size: fc.integer({ min: 1, max: 2 ** 22 }),
    clusterSize: fc.constantFrom(512, 65536, 2 ** 21),
    within: fc.nat(2 ** 21),
  }),
)
/** Contiguous mappings, as a source yields them, from anywhere. */
const anyMappings = fc
  .tuple(
    fc.integer({ min: 0, max: 2 ** 50 }),
    fc.array(fc.tuple(anyMapping, fc.integer({ min: 1, max: 2 ** 40 })), { maxLength: 60 }),
  )
  .map(([first, items]) => {
    let start = first
    return items.map(([mapping, length]) => {
      const placed = { ...mapping, start, length } as Mapping
      start += length
      return placed
    })
  })

t.test('rows cover the same bytes in order, and lose nothing of a copied mapping', async (t) => {
  const property = fc.property(anyMappings, fc.constantFrom(FRESH, OVERLAY), (mappings, policy) => {
    const rows = rowsOf(packRows(mappings, policy))
    let at = mappings[0]?.start
    for (const [, start, length] of rows) {
      if (start !== at) return false
      at += length
    }
    const last = mappings.at(-1)
    if (last && at !== last.start + last.length) return false
    const merged: number[] = [ROW.skip, ROW.zero]
    if (rows.some(([kind], i) => merged.includes(kind) && rows[i + 1]?.[0] === kind)) return false

    const copied = mappings.filter((mapping) => policy[mapping.kind] === 'copy')
    const reads = rows.filter(([kind]) => !merged.includes(kind))
    if (reads.length !== copied.length) return false
    if (!copied.every((mapping, i) => isRow(mapping, reads[i]))) return false
    const bytes = (kind: number) =>
      rows.reduce((sum, [one, , length]) => sum + (one === kind ? length : 0), 0)
    const planned = (action: Action) =>
      mappings.reduce((sum, { kind, length }) => sum + (policy[kind] === action ? length : 0), 0)
    return bytes(ROW.zero) === planned('zero') && bytes(ROW.skip) === planned('skip')
  })
  t.doesNotThrow(() => fc.assert(property, { numRuns: 500 }))
})

/** Whether a row says all that the mapping says. */
function isRow(mapping: Mapping, row: readonly number[]): boolean {
  const whole = { store: 0, offset: 0, size: 0, clusterSize: 0, within: 0, ...mapping }
  const { start, length, store, offset, size, clusterSize, within } = whole
  if (!('store' in mapping)) return false
  const columns = [ROW[mapping.kind], start, length, store, offset, size, clusterSize, within]
  return columns.every((number, i) => number === row[i])
}
