import { type Phase, type Progress, paced, type Report } from '../../progress.ts'
import type { ByteCounter } from '../changes/changes.ts'

/** Progress of a commit: first its bitmaps, then its data, then its bitmaps again. */
export class CommitProgress {
  readonly #size: number
  readonly #counter: ByteCounter
  readonly #report: Report | undefined
  #phase: Phase | undefined
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
    this.#report = paced(onProgress)
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

  /** A phase's beginning is always told. */
  #tell(phase: Phase, dataBytes: number, always = phase !== this.#phase): void {
    this.#phase = phase
    this.#report?.({ phase, position: this.#position, size: this.#size, dataBytes }, always)
  }
}
