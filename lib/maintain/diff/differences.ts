import type { Bits } from '../../edit/bits.ts'
import { BackupError, throwIfAborted } from '../../errors.ts'
import type { Area } from '../../extents/areas.ts'
import { lookAtSteps } from '../../qemu-img/compare/compare.ts'
import { type ReadStep, readStep } from '../../qemu-img/compare/examine.ts'
import { planComparison, type Side } from '../../qemu-img/compare/plan.ts'
import type { ContentReader } from '../../qemu-img/compare/read.ts'
import type { OpenedSide } from './sides.ts'

/** Guest bytes that could not be read; they count as different. */
export interface UnreadableArea extends Area {
  /** Of the image (0) or of the baseline (1). */
  side: Side
  why: string
}

export interface LookingOptions {
  signal?: AbortSignal
  /** Called now and then with guest bytes compared so far, and all. */
  onProgress?: (position: number, size: number) => void
}

/** Bytes between two calls of onProgress. */
const PROGRESS_BYTES = 64 * 2 ** 20

/**
 * Adds every granule of a disk in which the guest sees something else than in another. What the other
 * lacks, being smaller, is zero.
 * @returns what could not be read, and counts as different
 * @throws BackupError BAD_IMAGE if it cannot be told what is where; IO, ABORTED
 */
export async function addDifferences(
  bits: Bits,
  sides: readonly [OpenedSide, OpenedSide],
  { signal, onProgress }: LookingOptions = {},
): Promise<UnreadableArea[]> {
  const unreadable: UnreadableArea[] = []
  // What only the second one has is no part of the first.
  const size = Math.min(bits.size, sides[0].node.size)
  let told = 0
  await lookAtSteps(planComparison([sides[0].node, sides[1].node]), {
    direct: true,
    look: (step, reader, memory) => differences(step, reader, memory, bits.granularity),
    async told(step, found) {
      throwIfAborted(signal, sides[0].name)
      if (step.kind === 'unknown') throw damaged(sides[step.side].name, step)
      if (!('length' in step) || step.start >= size) return false
      for (const { start, length } of found?.areas ?? []) bits.add(start, length)
      if (found?.why !== undefined) {
        const { start, length } = step
        unreadable.push({ start, length, side: found.side as Side, why: found.why })
      }
      const position = step.start + step.length
      if (position - told >= PROGRESS_BYTES || position >= size) {
        told = position
        onProgress?.(position, size)
      }
      return false
    },
  })
  return unreadable
}

/** The granules of a step that differ; all of them if it cannot be read. */
async function differences(
  step: ReadStep,
  reader: ContentReader,
  memory: Buffer,
  granularity: number,
): Promise<{ areas: Area[]; side?: Side; why?: string }> {
  const { start, length } = step
  const found = await readStep(step, reader, memory)
  if ('why' in found) return { areas: [{ start, length }], ...found }
  const [a, b] = found.bytes
  const areas: Area[] = []
  if (a.equals(b)) return { areas }
  for (let at = 0; at < length; ) {
    const border = Math.floor((start + at) / granularity + 1) * granularity - start
    const end = Math.min(border, length)
    if (!a.subarray(at, end).equals(b.subarray(at, end))) {
      const last = areas.at(-1)
      if (last && last.start + last.length === start + at) last.length += end - at
      else areas.push({ start: start + at, length: end - at })
    }
    at = end
  }
  return { areas }
}

function damaged(path: string, { start, corruption }: { start: number; corruption?: string }) {
  const why = `cannot tell what is at guest offset ${start}: ${corruption ?? 'it cannot be read'}`
  return new BackupError('BAD_IMAGE', path, why)
}
