import type { DirtyRun } from '../../format/qcow2/bits.ts'

/** Walks the runs of a bitmap forwards. */
export class RunCursor {
  readonly #batches: AsyncIterator<readonly DirtyRun[]>
  #batch: readonly DirtyRun[] = []
  #index = 0

  /** @param runs ordered and contiguous */
  constructor(runs: AsyncIterable<readonly DirtyRun[]>) {
    this.#batches = runs[Symbol.asyncIterator]()
  }

  /** The run that holds `offset`, not below one asked for before; undefined if it must be read. */
  at(offset: number): DirtyRun | undefined {
    for (; this.#index < this.#batch.length; this.#index++) {
      const run = this.#batch[this.#index]
      if (run.start + run.length > offset) return run
    }
    return undefined
  }

  /** Like `at`, from the batches to come; undefined if the runs end before. */
  async read(offset: number): Promise<DirtyRun | undefined> {
    for (;;) {
      const run = this.at(offset)
      if (run) return run
      const { value, done } = await this.#batches.next()
      if (done) return undefined
      this.#batch = value
      this.#index = 0
    }
  }

  async close(): Promise<void> {
    await this.#batches.return?.()
  }
}
