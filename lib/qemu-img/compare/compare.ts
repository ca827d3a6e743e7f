import type { BlockNode } from '../block-status/node.ts'
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

/** What is done with steps. */
export interface Looking<T> {
  /** Read past the page cache, where files can be. */
  direct: boolean
  /**
   * Looks at what a step reads.
   * @param memory aligned, for all that it reads
   */
  look(step: ReadStep, reader: ContentReader, memory: Buffer): Promise<T>
  /**
   * Takes what was found, in the order of the steps; of a step that reads nothing, nothing.
   * @returns true to end
   */
  told(step: Step, found: T | undefined): Promise<boolean>
}

/** A step that was begun. */
interface Begun<T> extends Load {
  step: Step
  found: Promise<T | undefined>
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
  let finding: Finding | undefined
  await lookAtSteps<Finding | undefined>(planComparison(images, options), {
    direct: options.direct ?? true,
    look: examine,
    async told(step, found) {
      finding = found ?? foundBy(step)
      if (finding) return true
      if (step.kind === 'tail') await options.onTail?.()
      if ('length' in step) await options.onEqual?.(step.length)
      return false
    },
  })
  return finding
}

/** Goes through steps in their order, several under way at once. */
export async function lookAtSteps<T>(
  steps: AsyncIterable<Step>,
  looking: Looking<T>,
): Promise<void> {
  const queue = new Queue(looking)
  try {
    for await (const step of steps) if (await queue.add(step)) return
    await queue.finish()
  } finally {
    await queue.close()
  }
}

/** Steps under way. */
class Queue<T> {
  readonly #looking: Looking<T>
  readonly #reader: ContentReader
  readonly #ring = new Ring(MEMORY)
  readonly #begun: Begun<T>[] = []
  #expanded = 0

  constructor(looking: Looking<T>) {
    this.#looking = looking
    this.#reader = new ContentReader(looking.direct)
  }

  /** Begins a step, and waits for earlier ones as long as too much is under way; true: it is over. */
  async add(step: Step): Promise<boolean> {
    const load = loadOf(step)
    for (;;) {
      const memory = this.#memoryFor(load)
      if (memory) {
        this.#begin(step, load, memory)
        return false
      }
      if (await this.#next()) return true
    }
  }

  /** Waits for the rest. */
  async finish(): Promise<void> {
    while (this.#begun.length > 0) if (await this.#next()) return
  }

  /** Waits until nothing is read any more, whatever comes of it. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#begun.map(({ found }) => found))
    await this.#reader.close()
  }

  /** @returns undefined if too much is under way */
  #memoryFor({ read, expanded }: Load): Buffer | undefined {
    if (this.#begun.length >= STEPS || this.#expanded + expanded > MEMORY) return undefined
    return read === 0 ? NONE : this.#ring.take(read)
  }

  #begin(step: Step, load: Load, memory: Buffer): void {
    const found = reads(step)
      ? this.#looking.look(step, this.#reader, memory)
      : Promise.resolve(undefined)
    // It is told when its turn comes, which may be never.
    found.catch(() => {})
    this.#begun.push({ step, found, ...load })
    this.#expanded += load.expanded
  }

  /** Waits for the oldest step; true: it is over. */
  async #next(): Promise<boolean> {
    const { step, found, read, expanded } = this.#begun[0]
    const told = await found
    this.#begun.shift()
    if (read > 0) this.#ring.give()
    this.#expanded -= expanded
    return await this.#looking.told(step, told)
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
    if (content.kind === 'remote') load.expanded += step.length
  }
  return load
}

/** What a step that reads nothing says. */
function foundBy(step: Step): Finding | undefined {
  const ends = step.kind === 'sizes' || step.kind === 'status' || step.kind === 'unknown'
  return ends ? step : undefined
}
