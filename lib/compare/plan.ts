import { type BlockNode, statusAbove } from '../block-status/node.ts'
import {
  ALLOCATED,
  answered,
  COMPRESSED,
  type Status,
  StatusError,
  ZERO,
} from '../block-status/status.ts'
import { type Content, contentOf, sameContent } from './content.ts'
import { ContentWork } from './content-work.ts'

/**
 * QEMU reads this many bytes of each image at a time; offsets in its messages follow from it. As
 * native/compare/row_pair.h has it: do not change one without the other.
 */
const MAX_STEP_BYTES = 2 ** 21

/** Which of the two images, in the order of the arguments. */
export type Side = 0 | 1

/** Guest bytes to compare, in order. */
export type Step =
  /** Equal without a look. */
  | { kind: 'skip'; start: number; length: number }
  /** Equal if both read the same. */
  | { kind: 'compare'; start: number; length: number; content: [Content, Content] }
  /** Equal if this side's content is zero. */
  | { kind: 'empty'; start: number; length: number; side: Side; content: Content }
  /** The common part is equal; the rest of the larger disk follows. */
  | { kind: 'tail' }
  /** Not equal in strict mode. */
  | { kind: 'sizes' }
  | { kind: 'status'; start: number }
  /** The status of this side cannot be known. */
  | { kind: 'unknown'; start: number; side: Side; corruption?: string }

/** A step for which something has to be read. */
export type ReadStep = Extract<Step, { kind: 'compare' | 'empty' }>

/** Whether something has to be read for a step. */
export function isRead(step: Step): step is ReadStep {
  return step.kind === 'compare' || step.kind === 'empty'
}

export interface PlanOptions {
  /** Sizes and every flag of the block status must be equal, too. */
  strict?: boolean
  /** The flags that QEMU knows: since 8.2 it reports compressed clusters. */
  compressedFlag?: boolean
}

/**
 * Plans the reads needed to compare two images, from their metadata alone. A last step that is not
 * one of bytes ends the comparison.
 */
export async function* planComparison(
  images: readonly [BlockNode, BlockNode],
  { strict = false, compressedFlag = true }: PlanOptions = {},
): AsyncGenerator<Step> {
  const sizes = images.map(({ size }) => size)
  if (strict && sizes[0] !== sizes[1]) return yield { kind: 'sizes' }
  const common = Math.min(...sizes)
  const relevant = compressedFlag ? ~0 : ~COMPRESSED
  const work = new ContentWork()
  for (let start = 0; start < common; ) {
    const a = await statusOf(images[0], start)
    if (a instanceof StatusError) return yield unknown(a, start, 0)
    const b = await statusOf(images[1], start)
    if (b instanceof StatusError) return yield unknown(b, start, 1)
    if (strict && ((a.flags ^ b.flags) & relevant) !== 0) return yield { kind: 'status', start }
    const end = start + Math.min(a.length, b.length)
    for (const step of stepsOf(a, b, start, end)) {
      const refused = refusedBy(work, step)
      if (refused) return yield refused
      yield step
    }
    start = end
  }
  if (sizes[0] === sizes[1]) return
  yield { kind: 'tail' }
  const side = sizes[0] > sizes[1] ? 0 : 1
  for (let start = common; start < sizes[side]; ) {
    const status = await statusOf(images[side], start)
    if (status instanceof StatusError) return yield unknown(status, start, side)
    const end = start + status.length
    if (isHeld(status) && (status.flags & ZERO) === 0) {
      for (const step of emptySteps(status, side, start, end)) {
        const refused = refusedBy(work, step)
        if (refused) return yield refused
        yield step
      }
    } else yield { kind: 'skip', start, length: status.length }
    start = end
  }
}

/** The step that ends a comparison whose images ask for more than sound ones can. */
function refusedBy(work: ContentWork, step: Step): Step | undefined {
  if (step.kind !== 'compare' && step.kind !== 'empty') return undefined
  const { start, length } = step
  const contents = step.kind === 'compare' ? step.content : [step.content]
  for (const [i, content] of contents.entries()) {
    const corruption = work.refusal(content, start, length)
    const side = step.kind === 'empty' ? step.side : (i as Side)
    if (corruption !== undefined) return { kind: 'unknown', start, side, corruption }
  }
  return undefined
}

async function statusOf(image: BlockNode, at: number): Promise<Status | StatusError> {
  try {
    return await answered(() => statusAbove(image, at, image.size - at))
  } catch (error) {
    if (error instanceof StatusError) return error
    throw error
  }
}

function unknown({ corruption }: StatusError, start: number, side: Side): Step {
  return { kind: 'unknown', start, side, corruption }
}

/** Some image of the chain holds it. */
function isHeld({ flags }: Status): boolean {
  return (flags & ALLOCATED) !== 0
}

function* stepsOf(a: Status, b: Status, start: number, end: number): Generator<Step> {
  const held = [isHeld(a), isHeld(b)]
  if ((a.flags & b.flags & ZERO) !== 0 || !(held[0] || held[1])) {
    yield { kind: 'skip', start, length: end - start }
  } else if (held[0] && held[1]) {
    for (let at = start; at < end; at += MAX_STEP_BYTES) {
      const content = [a, b].map((status) => contentOf(status, at - start)) as [Content, Content]
      const length = Math.min(MAX_STEP_BYTES, end - at)
      if (sameContent(...content)) yield { kind: 'skip', start: at, length }
      else yield { kind: 'compare', start: at, length, content }
    }
  } else {
    const side = held[0] ? 0 : 1
    yield* emptySteps([a, b][side], side, start, end)
  }
}

function* emptySteps(status: Status, side: Side, start: number, end: number): Generator<Step> {
  for (let at = start; at < end; at += MAX_STEP_BYTES) {
    const length = Math.min(MAX_STEP_BYTES, end - at)
    const content = contentOf(status, at - start)
    if (content.kind === 'zero') yield { kind: 'skip', start: at, length }
    else yield { kind: 'empty', start: at, length, side, content }
  }
}
