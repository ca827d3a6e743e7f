import { type Phase, PROGRESS_MS, type Progress } from '../../progress.ts'
import type { ByteCounter } from './changes.ts'

/** Progress of a commit: first its bitmaps, then its data, then its bitmaps again. */
export class CommitProgress {
  readonly #size: number
  readonly #counter: ByteCounter
  readonly #onProgress: ((progress: Progress) => void) | undefined
  readonly #started = performance.now()
  #phase: Phase | undefined
  #told = 0
  #position = 0
  /** Guest bytes of data that are durable. */
  #settledData = 0

  /**
   * @param size of the disk when all is committed, bytes
   * @param counter bytes to be committed, as far as known
   */
  constructor(size: number, counter: ByteCounter, onProgress?: (progress: Progress) => void) {
    this.#size = size
    this.#counter = counter
    this.#onProgress = onProgress
  }

  /** Another bitmap begins, before or after the data. */
  bitmap(): void {
    this.#tell('bitmaps', this.#settledData)
  }

  /** Data is being copied; `dataBytes` of it are done but not counted yet. */
  copying(dataBytes: number): void {
    this.#tell('copy', this.#settledData + dataBytes)
  }

  /** Guest bytes before `position` are durable. */
  settled(position: number): void {
    this.#position = position
    this.#settledData = this.#counter.dataBytes
    this.#tell('copy', this.#settledData, position === this.#size)
  }

  #tell(phase: Phase, dataBytes: number, always = phase !== this.#phase): void {
    const now = performance.now()
    if (!this.#onProgress || (!always && now - this.#told < PROGRESS_MS)) return
    this.#told = now
    this.#phase = phase
    const elapsedSeconds = (now - this.#started) / 1000
    this.#onProgress({
      phase,
      position: this.#position,
      size: this.#size,
      dataBytes,
      elapsedSeconds,
    })
  }
}
