import { storesOf } from '../../block-status/node.ts'
import { whyUnreadable } from '../../compare/failure.ts'
import { runComparison } from '../../compare/job.ts'
import { planComparison, type Side, type Step } from '../../compare/plan.ts'
import type { Bits } from '../../edit/bits.ts'
import { BackupError } from '../../errors.ts'
import type { Range } from '../../extents/range-set.ts'
import type { DiffSide } from './sides.ts'

/** Guest bytes that could not be read; they count as different. */
export interface UnreadableRange extends Range {
  /** Of the image (0) or of the baseline (1). */
  side: Side
  why: string
}

export interface DifferenceOptions {
  signal?: AbortSignal
  /** Called now and then with guest bytes compared so far, and all. */
  onProgress?: (position: number, size: number) => void
}

/** Bytes between two calls of onProgress. */
const PROGRESS_BYTES = 64 * 2 ** 20

/**
 * Adds every granule of a disk whose guest content differs from another disk's. Bytes that the other
 * lacks, being smaller, are zero.
 * @returns ranges that could not be read, and count as different
 * @throws BackupError BAD_IMAGE if the block status cannot be read; IO, ABORTED
 */
export async function addDifferences(
  bits: Bits,
  sides: readonly [DiffSide, DiffSide],
  { signal, onProgress }: DifferenceOptions = {},
): Promise<UnreadableRange[]> {
  const unreadable: UnreadableRange[] = []
  const disks = [sides[0].node, sides[1].node] as const
  // Bytes that only the second disk has are not part of the first.
  const size = Math.min(bits.size, disks[0].size)
  let told = 0
  await runComparison(within(size, planComparison(disks)), {
    names: [sides[0].name, sides[1].name],
    stores: storesOf(disks),
    granularity: bits.granularity,
    direct: true,
    signal,
    onFound(found) {
      // The last granule of a disk may be cut short.
      const length = Math.min(found.length, size - found.start)
      if (length <= 0) return
      bits.add(found.start, length)
      if (found.kind === 'differs') return
      const { start, side } = found
      unreadable.push({ start, length, side, why: whyUnreadable(found) })
    },
    onCompared(step) {
      if (step.kind === 'unknown') throw damaged(sides[step.side].name, step)
      if (!('length' in step)) return
      const position = step.start + step.length
      if (position - told >= PROGRESS_BYTES || position >= size) {
        told = position
        onProgress?.(position, size)
      }
    },
  })
  return unreadable
}

/** Steps up to an offset. */
async function* within(end: number, steps: AsyncIterable<Step>): AsyncGenerator<Step> {
  for await (const step of steps) {
    if ('start' in step && step.start >= end) return
    yield step
  }
}

function damaged(path: string, { start, corruption }: { start: number; corruption?: string }) {
  const why = `cannot tell what is at guest offset ${start}: ${corruption ?? 'it cannot be read'}`
  return new BackupError('BAD_IMAGE', path, why)
}
