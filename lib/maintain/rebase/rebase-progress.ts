import { type Progress, paced, type Report } from '../../progress.ts'
import type { ByteCounter } from '../changes/changes.ts'

/** Reports how much of what differs is copied. */
export class RebaseProgress {
  /** What is read to be copied. */
  readonly #counter: ByteCounter
  readonly #onProgress: ((progress: Progress) => void) | undefined
  #report: Report | undefined
  #size = 0
  /** Guest bytes that are durable in the image, and those of them that are data. */
  #settled = 0
  #data = 0

  constructor(counter: ByteCounter, onProgress?: (progress: Progress) => void) {
    this.#counter = counter
    this.#onProgress = onProgress
  }

  /** @param size guest bytes to copy */
  begin(size: number): void {
    this.#size = size
    this.#report = paced(this.#onProgress)
  }

  /** Data is being copied, of which so many bytes are done that do not count yet. */
  copying(dataBytes: number): void {
    this.#tell(Math.min(this.#settled + dataBytes, this.#size))
  }

  /** What was read so far is durable. */
  settled(): void {
    const { dataBytes, zeroBytes } = this.#counter
    this.#settled = dataBytes + zeroBytes
    this.#data = dataBytes
    this.#tell(this.#settled, this.#settled === this.#size)
  }

  #tell(position: number, always?: boolean): void {
    const [size, dataBytes] = [this.#size, this.#data]
    this.#report?.({ phase: 'copy', position, size, dataBytes }, always)
  }
}
