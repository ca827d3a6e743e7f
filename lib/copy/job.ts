import type { CopyCounters } from '../native.ts'
import { planFresh, planImage, planOverlay } from '../plan/plan.ts'
import { ROW } from '../plan/rows.ts'
import type { Disk } from '../source/source.ts'
import type { DiscardAfterCopy } from './discard.ts'
import type { HeldFirst } from './held-first.ts'
import { type HeldRanges, withHeldZeroes } from './held-ranges.ts'
import { planInTurn } from './in-turn.ts'
import { type CopyTarget, runCopy } from './run-copy.ts'
import type { JobOptions, TargetFormat } from './spec.ts'

/** How a source that keeps a point in time is dealt with; all of the same source. */
export interface PointHandling {
  /** Receives the ranges that are durable, or are not read. */
  discarding?: DiscardAfterCopy
  /** With `discarding`: what the image that keeps the point holds is copied first. */
  first?: HeldFirst
  /** What is zero by its status is read all the same where it is held: see withHeldZeroes. */
  held?: HeldRanges
}

/** Least that QEMU holds, bytes. */
const LEAST_HELD = 65536

/**
 * Copies a source, all of it or its dirty ranges, into a fresh target. The target is complete but not
 * synced when the promise resolves; when it rejects, nothing is written any more.
 * @throws BackupError; or any exception of `onProgress`, which ends the copy
 */
export async function copyDisk(
  source: Disk,
  target: CopyTarget,
  options: JobOptions,
  { discarding, first, held }: PointHandling = {},
): Promise<CopyCounters> {
  const { format } = options
  let plan = planOf(source, format)
  if (held) {
    const [{ size }] = source.stores
    const granule = discarding?.granule ?? LEAST_HELD
    plan = withHeldZeroes(plan, held, zeroOf(format), granule, size)
  }
  if (!discarding) return await runCopy(source, target, () => plan, options)
  return await runCopy(
    first?.disk ?? source,
    target,
    (job) => planInTurn(plan, job, discarding, first),
    options,
    {
      watch: (job) => discarding.watch(job),
      upTo(position) {
        first?.passed(position)
        return discarding.upTo(position)
      },
    },
  )
}

/** The kind of row by which a plan has zeroes. */
function zeroOf(format: TargetFormat): number {
  return format.kind === 'qcow2' && format.backing ? ROW.zero : ROW.skip
}

/** The whole disk; over a backing file only the ranges dirty in the source's bitmap. */
function planOf(source: Disk, format: TargetFormat): AsyncIterable<Float64Array> {
  if (format.kind === 'qcow2') return planImage(source, format)
  // Ranges past the end of the backing file do not count as dirty here.
  if (format.kind === 'hash' && format.hasBacking) {
    return planOverlay(source, format.unit, source.size)
  }
  return planFresh(source)
}
