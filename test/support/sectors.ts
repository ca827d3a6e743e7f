/** Power failures in the middle of writes: each sector that was not synced is there or is not. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs'
import type { ImageDisk, Write } from '../../lib/image/steps.ts'

const SECTOR = 512

/** One sector that was written. */
interface Sector {
  offset: number
  bytes: Buffer
}

/** A disk that also records the writes to it, by the syncs that made them durable. */
export function recording(disk: ImageDisk): { disk: ImageDisk; steps: Write[][] } {
  const steps: Write[][] = [[]]
  return {
    steps,
    disk: {
      async write(write) {
        steps.at(-1)?.push({ offset: write.offset, bytes: Buffer.from(write.bytes) })
        await disk.write(write)
      },
      async sync() {
        steps.push([])
        await disk.sync()
      },
    },
  }
}

/** The sectors that a step writes, in its order; a write that starts inside one has a part of it. */
export function sectorsOf(step: readonly Write[]): Sector[] {
  return step.flatMap(({ offset, bytes }) => {
    const sectors: Sector[] = []
    for (let at = offset; at < offset + bytes.length; ) {
      const end = Math.min((Math.floor(at / SECTOR) + 1) * SECTOR, offset + bytes.length)
      sectors.push({ offset: at, bytes: bytes.subarray(at - offset, end - offset) })
      at = end
    }
    return sectors
  })
}

/** Puts sectors into a file, which grows if it has to. */
export function apply(path: string, sectors: readonly Sector[]): void {
  const file = openSync(path, 'r+')
  try {
    for (const { offset, bytes } of sectors) writeSync(file, bytes, 0, bytes.length, offset)
  } finally {
    closeSync(file)
  }
}

/** Lets a file end at `size` bytes. */
export function cut(path: string, size: number): void {
  const file = openSync(path, 'r+')
  try {
    ftruncateSync(file, size)
  } finally {
    closeSync(file)
  }
}
