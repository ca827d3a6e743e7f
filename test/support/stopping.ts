/** Edits that end in the middle. */
import type { ImageDisk } from '../../lib/image/steps.ts'
import type { ChangeDisk } from '../../lib/maintain/changes/batch.ts'
import { effort } from './effort.ts'

/** The edit was ended here. */
export class Stopped extends Error {}

/** @returns a count that throws Stopped when it is called for the n-th time */
export function stopsAt(n: number): () => void {
  let calls = 0
  return () => {
    if (++calls === n) throw new Stopped()
  }
}

/** A disk that counts before each write and sync. */
export function counting(disk: ImageDisk, count: () => void): ImageDisk {
  return {
    async write(write) {
      count()
      await disk.write(write)
    },
    async sync() {
      count()
      await disk.sync()
    },
  }
}

/** Calls `count` before each write and sync, and in a copy after half of it. */
export function counted(disk: ChangeDisk, count: (isSync?: boolean) => void): ChangeDisk {
  return {
    ...counting(disk, count),
    async sync() {
      count(true)
      await disk.sync()
    },
    async copy(mappings, end) {
      count()
      await disk.copy(mappings.slice(0, mappings.length / 2), end)
      count()
      await disk.copy(mappings, end)
    },
    async deallocate(areas) {
      count()
      await disk.deallocate(areas)
    },
  }
}

/**
 * Before which calls to stop: all, or in a quick run one of each step, which ends with a sync, so that
 * each kind of write is met.
 * @param steps of how many calls each is
 * @param turn which call of a step
 */
export function stopsOf(steps: readonly number[], turn: number): number[] {
  let first = 1
  return steps.flatMap((calls) => {
    const all = Array.from({ length: calls }, (_, i) => first + i)
    first += calls
    return effort([all[turn % calls]], all)
  })
}
