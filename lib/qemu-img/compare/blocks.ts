import type { DiskFile } from './disk-file.ts'
import { alignedMemory } from './ring.ts'

/** Bytes of the file that are read at a time. */
const BLOCK = 2 ** 20
/** Blocks that are kept: 64 clusters of the usual size take four, and as many are compared at once. */
const KEPT = 8
/** How far apart two reads may be and still count as one following the other, bytes. */
const NEAR = 2 ** 18

/** A part of the file, from a multiple of BLOCK on. */
interface Block {
  index: number
  memory: Buffer
  bytes: Promise<Buffer>
  /** How many are reading it. */
  users: number
}

/**
 * Makes small reads that follow each other into large ones, which a disk serves several times as
 * fast.
 */
export class Blocks {
  readonly #file: DiskFile
  #unused: Buffer[] | undefined
  /** The one used last comes last. */
  #blocks: Block[] = []
  /** Where the last read ended. */
  #next = 0

  constructor(file: DiskFile) {
    this.#file = file
  }

  /**
   * A copy of bytes of the file.
   * @returns undefined if they had better be read by themselves: clusters may lie anywhere
   * @throws Unreadable
   */
  read(offset: number, length: number): Promise<Buffer> | undefined {
    const near = Math.abs(offset - this.#next) <= NEAR
    this.#next = offset + length
    const blocks: Block[] = []
    for (let at = offset - (offset % BLOCK); at < offset + length; at += BLOCK) {
      const block = this.#find(at / BLOCK) ?? (near ? this.#load(at / BLOCK) : undefined)
      if (!block) break
      block.users++
      blocks.push(block)
      this.#blocks = [...this.#blocks.filter((other) => other !== block), block]
    }
    const last = blocks.at(-1)
    if (last && (last.index + 1) * BLOCK >= offset + length) return copy(blocks, offset, length)
    for (const block of blocks) block.users--
    return undefined
  }

  #find(index: number): Block | undefined {
    return this.#blocks.find((block) => block.index === index)
  }

  /** @returns undefined if all the memory is in use */
  #load(index: number): Block | undefined {
    const memory = this.#takeMemory()
    if (!memory) return undefined
    const bytes = this.#file.read(index * BLOCK, BLOCK, memory)
    // Whoever asked for it is told; here it only must not count as nobody's.
    bytes.catch(() => {})
    return { index, memory, bytes, users: 0 }
  }

  #takeMemory(): Buffer | undefined {
    this.#unused ??= partsOf(alignedMemory(KEPT * BLOCK))
    const unused = this.#unused.pop()
    if (unused) return unused
    const old = this.#blocks.find(({ users }) => users === 0)
    this.#blocks = this.#blocks.filter((block) => block !== old)
    return old?.memory
  }
}

function partsOf(memory: Buffer): Buffer[] {
  const starts = Array.from({ length: KEPT }, (_, i) => i * BLOCK)
  return starts.map((start) => memory.subarray(start, start + BLOCK))
}

async function copy(blocks: readonly Block[], offset: number, length: number): Promise<Buffer> {
  const into = Buffer.allocUnsafe(length)
  try {
    let done = 0
    for (const { bytes, index } of blocks) {
      done += (await bytes).copy(into, done, offset + done - index * BLOCK)
    }
    return into
  } finally {
    for (const block of blocks) block.users--
  }
}
