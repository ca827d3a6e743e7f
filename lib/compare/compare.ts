import { type BlockNode, storesOf } from '../block-status/node.ts'
import { errnoOf, whyUnreadable } from './failure.ts'
import type { Found } from './found.ts'
import { runComparison } from './job.ts'
import { type PlanOptions, planComparison, type Side, type Step } from './plan.ts'

/** The finding that ends a comparison. */
export type Finding =
  /** The first sector that differs starts at this guest offset, bytes. */
  | { kind: 'content'; start: number }
  /**
   * Of this side the bytes from this guest offset on could not be read. `errno` is the system's or
   * the server's name of the error, EIO for a damaged compressed cluster; none if the file shrank.
   */
  | { kind: 'unreadable'; start: number; side: Side; why: string; errno?: string }
  /** The status of the bytes from this guest offset on cannot be known. */
  | { kind: 'unknown'; start: number; side: Side; corruption?: string }
  /** Only in strict mode: the sizes, or the block status, differ. */
  | { kind: 'sizes' }
  | { kind: 'status'; start: number }

export interface CompareOptions extends PlanOptions {
  /** Of the disks, for messages. */
  names: readonly [string, string]
  /** Read past the page cache, where files can be. Default: yes. */
  direct?: boolean
  signal?: AbortSignal
  /** Called before the bytes that only the larger disk has. */
  onTail?: () => void | Promise<void>
  /** Called as guest bytes turn out to be equal, in order. */
  onEqual?: (bytes: number) => void | Promise<void>
}

/**
 * Compares the guest content of two disks. Bytes are read only where the metadata does not decide:
 * not for zeroes, nor for the same place of the same file.
 * @returns the first finding in guest order; undefined if they are equal
 * @throws BackupError IO, ABORTED; exceptions of the callbacks
 */
export async function compareDisks(
  disks: readonly [BlockNode, BlockNode],
  options: CompareOptions,
): Promise<Finding | undefined> {
  const { names, direct = true, signal, onTail, onEqual } = options
  let finding: Finding | undefined
  await runComparison(planComparison(disks, options), {
    names,
    stores: storesOf(disks),
    granularity: 0,
    direct,
    signal,
    onFound(found) {
      finding ??= findingOf(found)
    },
    onCompared(step) {
      finding ??= foundBy(step)
      if (step.kind === 'tail') return onTail?.()
      if ('length' in step) return onEqual?.(step.length)
    },
  })
  return finding
}

function findingOf(found: Found): Finding {
  const { start } = found
  if (found.kind === 'differs') return { kind: 'content', start }
  const { side } = found
  return { kind: 'unreadable', start, side, why: whyUnreadable(found), errno: errnoOf(found) }
}

/** The finding of a step that reads nothing; such a step is the last one. */
function foundBy(step: Step): Finding | undefined {
  const ends = step.kind === 'sizes' || step.kind === 'status' || step.kind === 'unknown'
  return ends ? step : undefined
}
