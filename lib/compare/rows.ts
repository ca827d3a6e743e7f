import type { GuestStore } from '../block-status/status.ts'
import { COLUMNS, ROW } from '../plan/rows.ts'
import type { Content } from './content.ts'
import type { ReadStep } from './plan.ts'

/** Maximum pairs that cross the border at a time. */
const MAX_PAIRS = 512
/** Guest bytes that cross the border at a time, so that the job is soon under way: bytes. */
const MAX_BYTES = 64 * 2 ** 20

/** Identity of a store: an open file may be described by several objects. */
function keyOf(store: GuestStore): unknown {
  return store.kind === 'file' ? store.handle : store
}

/** Steps on their way to the addon, packed: for each two rows, see native/compare/row_pair.h. */
export class RowPairs {
  readonly #index = new Map<unknown, number>()
  readonly #rows = new Float64Array(MAX_PAIRS * 2 * COLUMNS)
  #pairs = 0
  #bytes = 0

  /** @param stores stores of the content; rows name them by index */
  constructor(stores: readonly GuestStore[]) {
    for (const [i, store] of stores.entries()) this.#index.set(keyOf(store), i)
  }

  get full(): boolean {
    return this.#pairs === MAX_PAIRS || this.#bytes >= MAX_BYTES
  }

  get empty(): boolean {
    return this.#pairs === 0
  }

  /** REQUIRES: not full. */
  add(step: ReadStep): void {
    for (const [side, content] of contentsOf(step).entries()) {
      const at = (this.#pairs * 2 + side) * COLUMNS
      this.#rows.fill(0, at, at + COLUMNS)
      this.#fill(at, content)
      this.#rows[at + 1] = step.start
      this.#rows[at + 2] = step.length
    }
    this.#pairs++
    this.#bytes += step.length
  }

  /** Rows added since the last call; valid until the next is added. */
  take(): Float64Array {
    const taken = this.#rows.subarray(0, this.#pairs * 2 * COLUMNS)
    this.#pairs = 0
    this.#bytes = 0
    return taken
  }

  #fill(at: number, content: Content): void {
    const rows = this.#rows
    switch (content.kind) {
      case 'zero':
        rows[at] = ROW.zero
        return
      case 'data':
      case 'remote':
        rows[at] = ROW.data
        rows[at + 3] = this.#indexOf(content.kind === 'data' ? content.file : content.remote)
        rows[at + 4] = content.offset
        return
      case 'stream': {
        const { method, offset, size, clusterSize, within } = content.stream
        rows[at] = ROW[method]
        rows[at + 3] = this.#indexOf(content.file)
        rows[at + 4] = offset
        rows[at + 5] = size
        rows[at + 6] = clusterSize
        rows[at + 7] = within
      }
    }
  }

  #indexOf(store: GuestStore): number {
    const index = this.#index.get(keyOf(store))
    if (index === undefined) throw new Error(`${store.path} is none of the files of the disk`)
    return index
  }
}

const ZERO: Content = { kind: 'zero' }

/** Of both sides, in their order. */
function contentsOf(step: ReadStep): [Content, Content] {
  if (step.kind === 'compare') return step.content
  return step.side === 0 ? [step.content, ZERO] : [ZERO, step.content]
}
