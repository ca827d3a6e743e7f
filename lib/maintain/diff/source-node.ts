import type { BlockNode } from '../../block-status/node.ts'
import { type Answer, DATA, OFFSET_VALID, ZERO } from '../../block-status/status.ts'
import type { Mapping, Source, SourceExport } from '../../source/source.ts'

/** An export as the comparison sees a disk. Walked once, from its start. */
export class SourceNode implements BlockNode {
  readonly size: number
  readonly overlay = false
  readonly #batches: AsyncIterator<readonly Mapping[]>
  readonly stores: readonly [SourceExport]
  #batch: readonly Mapping[] = []
  #index = 0

  /** REQUIRES: the source is an NBD export */
  constructor(source: Source) {
    this.size = source.size
    this.#batches = source.mappings()
    this.stores = [source.stores[0] as SourceExport]
  }

  ask(at: number, bytes: number): Answer {
    for (; this.#index < this.#batch.length; this.#index++) {
      const { kind, start, length } = this.#batch[this.#index]
      if (start + length <= at) continue
      const known = Math.min(bytes, start + length - at)
      if (kind !== 'data') return { flags: ZERO, length: known, offset: 0 }
      return { flags: DATA | OFFSET_VALID, length: known, offset: at, remote: this.stores[0] }
    }
    return this.#next()
  }

  async close(): Promise<void> {
    await this.#batches.return?.()
  }

  async #next(): Promise<void> {
    const { value, done } = await this.#batches.next()
    if (done) throw new Error('the status of the export ends before it does')
    this.#batch = value
    this.#index = 0
  }
}
