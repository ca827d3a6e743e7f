import { NbdReader } from '../../nbd/reader.ts'
import type { BlockNode } from '../../qemu-img/block-status/node.ts'
import {
  type Answer,
  DATA,
  OFFSET_VALID,
  type RemoteDisk,
  ZERO,
} from '../../qemu-img/block-status/status.ts'
import type { Piece, Source, SourceExport } from '../../source/source.ts'

/** An export as the comparison sees a disk. Walked once, from its start. */
export class SourceNode implements BlockNode {
  readonly size: number
  readonly overlay = false
  readonly #batches: AsyncIterator<readonly Piece[]>
  readonly #reader: NbdReader
  readonly #remote: RemoteDisk
  #batch: readonly Piece[] = []
  #index = 0

  /** REQUIRES: the source is an NBD export */
  constructor(source: Source) {
    const asked = source.files[0] as SourceExport
    this.size = source.size
    this.#batches = source.pieces()
    this.#reader = new NbdReader(asked)
    this.#remote = { read: (start, length) => this.#reader.read(start, length) }
  }

  ask(at: number, bytes: number): Answer {
    for (; this.#index < this.#batch.length; this.#index++) {
      const { kind, start, length } = this.#batch[this.#index]
      if (start + length <= at) continue
      const known = Math.min(bytes, start + length - at)
      if (kind !== 'data') return { flags: ZERO, length: known, offset: 0 }
      return { flags: DATA | OFFSET_VALID, length: known, offset: at, remote: this.#remote }
    }
    return this.#next()
  }

  async close(): Promise<void> {
    await this.#batches.return?.()
    this.#reader.close()
  }

  async #next(): Promise<void> {
    const { value, done } = await this.#batches.next()
    if (done) throw new Error('the status of the export ends before it does')
    this.#batch = value
    this.#index = 0
  }
}
