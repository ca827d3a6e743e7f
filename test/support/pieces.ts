/** Pieces of disks of a few bytes, each of which can be looked at. */
import fc from 'fast-check'
import type { DirtyRun } from '../../lib/format/qcow2/bits.ts'
import type { Piece } from '../../lib/source/source.ts'

const place = { store: fc.nat(3), offset: fc.integer({ min: 0, max: 2 ** 50 }) }
const anyPiece = fc.oneof(
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

/** Contiguous pieces of any kinds, from 0. */
export const contiguousPieces: fc.Arbitrary<Piece[]> = fc
  .array(fc.tuple(anyPiece, fc.integer({ min: 1, max: 20 })), { minLength: 1, maxLength: 20 })
  .map((items) => {
    let start = 0
    return items.map(([piece, length]) => {
      const placed = { ...piece, start, length } as Piece
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

/** The same in batches. */
export async function* batched<T>(all: readonly T[], size: number): AsyncGenerator<readonly T[]> {
  for (let at = 0; at < all.length; at += size) yield all.slice(at, at + size)
}

/** What each byte of contiguous pieces is, and where. */
export function bytesOf(pieces: readonly { kind: string; start: number; length: number }[]) {
  return (pieces as readonly Piece[]).flatMap((piece) =>
    Array.from({ length: piece.length }, (_, i) => {
      if (!('store' in piece)) return `${piece.start + i} ${piece.kind}`
      const where = 'within' in piece ? `${piece.offset}+${piece.within + i}` : piece.offset + i
      return `${piece.start + i} ${piece.kind} ${piece.store} ${where}`
    }),
  )
}
