/** Mappings of disks of a few bytes, each of which can be looked at. */
import fc from 'fast-check'
import type { DirtyRun } from '../../lib/format/qcow2/bits.ts'
import type { Mapping } from '../../lib/source/source.ts'

const place = { store: fc.nat(3), offset: fc.integer({ min: 0, max: 2 ** 50 }) }
const anyMapping = fc.oneof(
  fc.record({ kind: fc.constantFrom('zero', 'hole') }),
  fc.record({ kind: fc.constant('data'), ...place }),
  fc.record({
    kind: fc.constantFrom('deflate', 'zstd'),
    ...place,
    size: fc.constant(512),
    clusterSize: fc.constant(4096),
    within: fc.nat(4000),
  }),
)

/** Contiguous mappings of any kinds, from 0. */
export const contiguousMappings: fc.Arbitrary<Mapping[]> = fc
  .array(fc.tuple(anyMapping, fc.integer({ min: 1, max: 20 })), { minLength: 1, maxLength: 20 })
  .map((items) => {
    let start = 0
    return items.map(([mapping, length]) => {
      const placed = { ...mapping, start, length } as Mapping
      start += length
      return placed
    })
  })

/** Alternating runs of such lengths, over and over until the end of a disk. */
export function dirtyRuns(size: number, lengths: readonly number[]): DirtyRun[] {
  const runs: DirtyRun[] = []
  for (let start = 0; start < size; ) {
    const length = Math.min(lengths[runs.length % lengths.length], size - start)
    runs.push({ start, length, dirty: runs.length % 2 === 1 })
    start += length
  }
  return runs
}

/** The mappings in batches. */
export async function* batched<T>(all: readonly T[], size: number): AsyncGenerator<readonly T[]> {
  for (let at = 0; at < all.length; at += size) yield all.slice(at, at + size)
}

/** Kind and place of each byte of contiguous mappings. */
export function bytesOf(mappings: readonly { kind: string; start: number; length: number }[]) {
  return (mappings as readonly Mapping[]).flatMap((mapping) =>
    Array.from({ length: mapping.length }, (_, i) => {
      if (!('store' in mapping)) return `${mapping.start + i} ${mapping.kind}`
      const where =
        'within' in mapping ? `${mapping.offset}+${mapping.within + i}` : mapping.offset + i
      return `${mapping.start + i} ${mapping.kind} ${mapping.store} ${where}`
    }),
  )
}
