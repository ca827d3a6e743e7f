import { type CopyJob, native } from '../native.ts'
import { PROGRESS_MS, type Progress } from '../progress.ts'

export type { Progress } from '../progress.ts'

/** Reports a copy's progress to the caller. */
export class Reporter {
  readonly #job: CopyJob
  readonly #size: number
  readonly #onProgress: ((progress: Progress) => void) | undefined
  readonly #started = performance.now()
  readonly #numbers = new Float64Array(5)
  readonly #timer: NodeJS.Timeout | undefined
  #thrown: { error: unknown } | undefined

  /** @param size virtual size, bytes */
  constructor(job: CopyJob, size: number, onProgress?: (progress: Progress) => void) {
    this.#job = job
    this.#size = size
    this.#onProgress = onProgress
    if (onProgress) this.#timer = setInterval(() => this.now(), PROGRESS_MS)
  }

  now(): void {
    if (!this.#onProgress) return
    native().copyProgress(this.#job, this.#numbers)
    const [position, dataBytes] = this.#numbers
    const elapsedSeconds = (performance.now() - this.#started) / 1000
    try {
      this.#onProgress({ phase: 'copy', position, size: this.#size, dataBytes, elapsedSeconds })
    } catch (error) {
      // From a timer it would end the process, and the caller's promise would never know.
      this.#thrown ??= { error }
      native().copyCancel(this.#job)
    }
  }

  /** @throws any exception of `onProgress` */
  rethrow(): void {
    if (this.#thrown) throw this.#thrown.error
  }

  stop(): void {
    clearInterval(this.#timer)
  }
}
