import type { BlockNode } from '../status/node.ts'
import { contentsOf, examine, type Finding, type ReadStep } from './examine.ts'
import { type PlanOptions, planComparison, type Step } from './plan.ts'
import { ContentReader, memoryFor } from './read.ts'
import { Ring } from './ring.ts'

export interface CompareOptions extends PlanOptions {
  /** Read past the page cache, where files can be. Default: yes. */
  direct?: boolean
  /** Called before the bytes that only the larger image has. */
  onTail?: () => void | Promise<void>
  /** Called as bytes turn out to be equal, in order. */
  onEqual?: (bytes: number) => void | Promise<void>
}

/**
 * Bytes that are read at once. Four threads read, so more than four reads of 2 MiB of each image
 * gain nothing but a step that is ready when the one before it is done.
 */
const MEMORY = 24 * 2 ** 20
/** Steps that are begun at once: small clusters may lie anywhere in the files. */
const STEPS = 64

/** What a step holds while it is under way, bytes. */
interface Load {
  /** Of the ring. */
  read: number
  /** Of what is expanded. */
  expanded: number
}

/** A step that was begun. */
interface Begun extends Load {
  step: Step
  finding: Promise<Finding | undefined>
}

const NONE = Buffer.alloc(0)

/**
 * Compares what the guest sees of two images.
 * @returns what was found first, in the order of the guest; undefined if they are equal
 */
export async function compareNodes(
  images: readonly [BlockNode, BlockNode],
  options: CompareOptions = {},
): Promise<Finding | undefined> {
  const comparison = new Comparison(options)
  try {
    for await (const step of planComparison(images, options)) {
      const finding = await comparison.add(step)
      if (finding) return finding
    }
    return await comparison.finish()
  } finally {
    await comparison.close()
  }
}

/** Steps under way; what they find is told in their order. */
class Comparison {
  readonly #options: CompareOptions
  readonly #reader: ContentReader
  readonly #ring = new Ring(MEMORY)
  readonly #begun: Begun[] = []
  #expanded = 0

  constructor(options: CompareOptions) {
    this.#options = options
    this.#reader = new ContentReader(options.direct ?? true)
  }

  /** Begins a step, and waits for earlier ones as long as too much is under way. */
  async add(step: Step): Promise<Finding | undefined> {
    const load = loadOf(step)
    for (;;) {
      const memory = this.#memoryFor(load)
      if (memory) {
        this.#begin(step, load, memory)
        return undefined
      }
      const found = await this.#next()
      if (found) return found
    }
  }

  /** Waits for the rest. */
  async finish(): Promise<Finding | undefined> {
    while (this.#begun.length > 0) {
      const found = await this.#next()
      if (found) return found
    }
    return undefined
  }

  /** Waits until nothing is read any more, whatever comes of it. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#begun.map(({ finding }) => finding))
    await this.#reader.close()
  }

  /** @returns undefined if too much is under way */
  #memoryFor({ read, expanded }: Load): Buffer | undefined {
    if (this.#begun.length >= STEPS || this.#expanded + expanded > MEMORY) return undefined
    return read === 0 ? NONE : this.#ring.take(read)
  }

  #begin(step: Step, load: Load, memory: Buffer): void {
    const finding = reads(step)
      ? examine(step, this.#reader, memory)
      : Promise.resolve(foundBy(step))
    // It is told when its turn comes, which may be never.
    finding.catch(() => {})
    this.#begun.push({ step, finding, ...load })
    this.#expanded += load.expanded
  }

  /** Waits for the oldest step. */
  async #next(): Promise<Finding | undefined> {
    const { step, finding, read, expanded } = this.#begun[0]
    const found = await finding
    this.#begun.shift()
    if (read > 0) this.#ring.give()
    this.#expanded -= expanded
    if (found) return found
    if (step.kind === 'tail') await this.#options.onTail?.()
    if ('length' in step) await this.#options.onEqual?.(step.length)
    return undefined
  }
}

function reads(step: Step): step is ReadStep {
  return step.kind === 'compare' || step.kind === 'empty'
}

function loadOf(step: Step): Load {
  const load = { read: 0, expanded: 0 }
  if (!reads(step)) return load
  for (const content of contentsOf(step)) {
    load.read += memoryFor(content, step.length)
    if (content.kind === 'stream') load.expanded += content.stream.clusterSize
  }
  return load
}

/** What a step that reads nothing says. */
function foundBy(step: Step): Finding | undefined {
  const ends = step.kind === 'sizes' || step.kind === 'status' || step.kind === 'unknown'
  return ends ? step : undefined
}
