import { asError } from '../errors.ts'
import type { Range } from '../extents/range-set.ts'
import { type CopyJob, native } from '../native.ts'
import type { SourceReader } from '../source/source.ts'

/** Does the reads of a running copy that the calling program has to do by itself. */
export class CallerReads {
  /** Why the last read that failed did. */
  failure: Error | undefined
  readonly #job: CopyJob
  readonly #reader: SourceReader
  readonly #running = new Map<AbortController, Range>()

  constructor(job: CopyJob, reader: SourceReader) {
    this.#job = job
    this.#reader = reader
  }

  /** @param reads triples id, offset, length, as copyEvents reports them */
  start(reads: Float64Array): void {
    for (let i = 0; i < reads.length; i += 3) {
      void this.#read(reads[i], { start: reads[i + 1], length: reads[i + 2] })
    }
  }

  /** Drops all reads in a range. */
  cancel({ start, length }: Range): void {
    for (const [controller, read] of this.#running) {
      if (read.start >= start && read.start + read.length <= start + length) controller.abort()
    }
  }

  /** Drops all reads. */
  stop(): void {
    for (const controller of this.#running.keys()) controller.abort()
  }

  async #read(id: number, area: Range): Promise<void> {
    const controller = new AbortController()
    this.#running.set(controller, area)
    let bytes: Uint8Array | undefined
    try {
      bytes = checked(await this.#reader.read(area.start, area.length, controller.signal), area)
    } catch (error) {
      this.failure = asError(error)
    } finally {
      this.#running.delete(controller)
    }
    native().copyCompleteRead(this.#job, id, bytes)
  }
}

function checked(bytes: Uint8Array, { start, length }: Range): Uint8Array {
  if (!(bytes instanceof Uint8Array)) throw new TypeError('read() did not return a Uint8Array')
  if (bytes.length === length) return bytes
  throw new RangeError(`read() returned ${bytes.length} bytes at ${start}, not ${length}`)
}
