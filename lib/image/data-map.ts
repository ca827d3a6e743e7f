import { ioError } from '../errors.ts'
import { native } from '../native.ts'
import type { OpenFile } from './file.ts'

/** A run of host bytes: stored, or a hole of the file system, which reads as zero. */
export interface HostRun {
  start: number
  length: number
  data: boolean
}

/** The host runs of a stretch of a file. */
export interface HostWindow {
  readonly start: number
  readonly end: number
  /** The runs between two offsets of the window, in order. */
  between(from: number, to: number): HostRun[]
}

/** Runs asked of the kernel at a time: well below a millisecond of its work. */
const RUNS = 1024

/**
 * The window of a file's host runs that starts at `at` and ends at `end`, or before if there are
 * many runs.
 * @param end at most the file's size
 */
export async function hostWindow(file: OpenFile, at: number, end: number): Promise<HostWindow> {
  if (file.blockDevice) return windowOf([{ start: at, length: end - at, data: true }])
  const triples = await native()
    .fileExtents(file.handle.fd, at, end, RUNS)
    .catch((error) => {
      throw ioError(file.path, error)
    })
  const runs: HostRun[] = []
  for (let i = 0; i < triples.length; i += 3) {
    runs.push({ start: triples[i], length: triples[i + 1], data: triples[i + 2] !== 0 })
  }
  return windowOf(runs)
}

/** A window over runs that are ordered and contiguous. */
export function windowOf(runs: readonly HostRun[]): HostWindow {
  const last = runs[runs.length - 1]
  return {
    start: runs[0].start,
    end: last.start + last.length,
    between(from, to) {
      const out: HostRun[] = []
      for (let i = indexAt(runs, from); i < runs.length && runs[i].start < to; i++) {
        const start = Math.max(from, runs[i].start)
        const end = Math.min(to, runs[i].start + runs[i].length)
        if (end > start) out.push({ start, length: end - start, data: runs[i].data })
      }
      return out
    },
  }
}

/** Index of the run that holds `at`. */
function indexAt(runs: readonly HostRun[], at: number): number {
  let low = 0
  let high = runs.length - 1
  while (low < high) {
    const middle = (low + high + 1) >> 1
    if (runs[middle].start <= at) low = middle
    else high = middle - 1
  }
  return low
}
