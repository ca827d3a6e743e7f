import { type Progress, paced, type Report } from '../../progress.ts'
import type { DiskRecord } from '../record.ts'

/**
 * Progress of copying images: bytes of their files. Each is copied, and then read once more, during which the
 * position stands still.
 */
export class ImageProgress {
  readonly #report: Report | undefined
  #size: number
  #done = 0
  #dataBytes = 0

  /** @param size bytes of all that will be copied, as far as is known */
  constructor(size: number, onProgress: ((progress: Progress) => void) | undefined) {
    this.#size = size
    this.#report = paced(onProgress)
  }

  /** Takes the progress of an image. */
  of({ fileSize }: DiskRecord): ((progress: Progress) => void) | undefined {
    const report = this.#report
    if (!report) return undefined
    const [start, before] = [this.#done, this.#dataBytes]
    this.#done += fileSize
    this.#size = Math.max(this.#size, this.#done)
    return ({ phase, position, dataBytes }) => {
      const isCopied = phase !== 'copy'
      if (!isCopied) this.#dataBytes = before + dataBytes
      const at = start + (isCopied ? fileSize : Math.min(position, fileSize))
      report({ phase, position: at, size: this.#size, dataBytes: this.#dataBytes })
    }
  }

  /** All is done. */
  end(): void {
    const [size, dataBytes] = [this.#size, this.#dataBytes]
    this.#report?.({ phase: 'copy', position: size, size, dataBytes }, true)
  }
}
