/** Current work of a long call. */
export type Phase =
  /** Copying. */
  | 'copy'
  /** Reading back the data written, from its start. */
  | 'verify'
  /** Comparing two disks. */
  | 'compare'
  /** Reading or storing dirty bitmaps. */
  | 'bitmaps'
  /** Looking at an image's metadata. */
  | 'check'
  /** Reading the map of an image. */
  | 'map'
  /** Reading the bitmaps of the images of a chain. */
  | 'chain'
  /** Running qemu-img and this program side by side. */
  | 'parity'
  /** Waiting until others are through with the images of a repository: of this nobody knows how far it is. */
  | 'wait'

/** Progress of a running call. */
export interface Progress {
  phase: Phase
  /**
   * Guest bytes from 0 that are settled: copied, zeroed or left alone; compared; looked up. Of several
   * bitmaps, guest bytes of all of them. Of a check, bytes of metadata that were read; of `chain`,
   * images, and of `parity`, comparisons that are done. Of images that are copied to another repository,
   * bytes of their files.
   */
  position: number
  /**
   * The value that `position` has at the end: the virtual size, bytes; of a check, the maximum bytes
   * of metadata; of `chain`, the number of images, and of `parity`, of comparisons.
   */
  size: number
  /** Guest bytes stored as data so far. */
  dataBytes: number
  elapsedSeconds: number
  /** Of a machine's backup or restore: how far each of its disks is. The numbers above are of all together. */
  disks?: readonly DiskProgress[]
}

/** Progress of one of several disks. */
export interface DiskProgress extends Pick<Progress, 'phase' | 'position' | 'size' | 'dataBytes'> {
  name: string
}

/** Time between two reports: often enough for a bar that moves, seldom enough to cost nothing. */
export const PROGRESS_MS = 100

/** Reports progress. `always`: also right after another report. */
export type Report = (progress: Omit<Progress, 'elapsedSeconds'>, always?: boolean) => void

/** Reports the progress of work that begins now, at most ten times a second. */
export function paced(onProgress: ((progress: Progress) => void) | undefined): Report | undefined {
  if (!onProgress) return undefined
  const started = performance.now()
  let told = started
  return (progress, always = false) => {
    const now = performance.now()
    if (!always && now - told < PROGRESS_MS) return
    told = now
    onProgress({ ...progress, elapsedSeconds: (now - started) / 1000 })
  }
}

/**
 * Reports the progress of work that knows only positions, at most ten times a second, and always with
 * `last`.
 * @param size bytes in all
 */
export function positions(
  phase: Phase,
  size: number,
  onProgress: ((progress: Progress) => void) | undefined,
): ((position: number, last?: boolean) => void) | undefined {
  const report = paced(onProgress)
  return report && ((position, last) => report({ phase, position, size, dataBytes: 0 }, last))
}
