import { type DiskProgress, type Phase, PROGRESS_MS, type Progress } from '../progress.ts'

/** The order in which a disk that is backed up goes through them. */
const PHASES: readonly Phase[] = ['compare', 'copy', 'verify']

/** Adds up the progress of several disks. */
export class TotalProgress {
  readonly #onProgress: ((progress: Progress) => void) | undefined
  readonly #phases: readonly Phase[]
  readonly #started = performance.now()
  readonly #disks: DiskProgress[]
  #told = Number.NEGATIVE_INFINITY

  /**
   * @param disks and the phase in which each is at the beginning
   * @param phases in the order in which a disk goes through them
   */
  constructor(
    disks: readonly (Pick<DiskProgress, 'name' | 'size'> & { phase?: Phase })[],
    onProgress: ((progress: Progress) => void) | undefined,
    phases = PHASES,
  ) {
    this.#onProgress = onProgress
    this.#phases = phases
    this.#disks = disks.map((disk) => ({ phase: 'copy', ...disk, position: 0, dataBytes: 0 }))
  }

  /** Takes the progress of one disk, and reports that of all at most ten times a second. */
  of(name: string): (progress: Progress) => void {
    const index = this.#disks.findIndex((disk) => disk.name === name)
    return ({ phase, position, size, dataBytes }) => {
      const before = this.#disks[index].dataBytes
      // Only a copy counts it.
      const data = phase === 'copy' ? dataBytes : before
      this.#disks[index] = { name, phase, position, size, dataBytes: data }
      if (performance.now() - this.#told >= PROGRESS_MS) this.tell()
    }
  }

  tell(): void {
    this.#told = performance.now()
    this.#onProgress?.(this.#total())
  }

  #total(): Progress {
    const disks = this.#disks.map((disk) => ({ ...disk }))
    const phases = disks.map(({ phase }) => this.#phases.indexOf(phase))
    const least = Math.min(...phases)
    const sum = (of: (disk: DiskProgress, i: number) => number) =>
      disks.reduce((total, disk, i) => total + of(disk, i), 0)
    return {
      phase: this.#phases[least],
      // A disk that is in a later phase is through with this one.
      position: sum(({ position, size }, i) => (phases[i] > least ? size : position)),
      size: sum(({ size }) => size),
      dataBytes: sum(({ dataBytes }) => dataBytes),
      elapsedSeconds: (performance.now() - this.#started) / 1000,
      disks,
    }
  }
}
