/** Edits that end in the middle. */
import type { ImageDisk } from '../../lib/image/steps.ts'

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
