import { asError } from '../errors.ts'
import { type CopyJob, type CopyWrite, native } from '../native.ts'
import type { TargetWriter } from './target/target.ts'

/** Does the writes of a running copy that the calling program has to do by itself. */
export class CallerWrites {
  /** Why the first write that failed did. */
  failure: Error | undefined
  readonly #job: CopyJob
  readonly #writer: TargetWriter
  readonly #running = new Set<Promise<void>>()
  readonly #controller = new AbortController()

  constructor(job: CopyJob, writer: TargetWriter) {
    this.#job = job
    this.#writer = writer
  }

  start(writes: readonly CopyWrite[]): void {
    for (const write of writes) {
      const running = this.#carryOut(write).finally(() => this.#running.delete(running))
      this.#running.add(running)
    }
  }

  /** Abandons all writes. Resolves when the program writes nothing any more. */
  async stop(): Promise<void> {
    this.#controller.abort()
    await Promise.all(this.#running)
  }

  async #carryOut({ id, kind, offset, length, bytes }: CopyWrite): Promise<void> {
    let isDone = false
    const { signal } = this.#controller
    try {
      if (kind === 'write') await this.#writer.write(offset, bytes!, signal)
      else if (kind === 'zero') await this.#writer.zero!(offset, length, signal)
      else await this.#writer.flush(signal)
      isDone = true
    } catch (error) {
      this.failure ??= asError(error)
    }
    native().copyCompleteWrite(this.#job, id, isDone)
  }
}
