/** What a command may take for images of 1 MiB in all, whatever they claim. */

/** Of the processor, on a machine as fast as the one on which this was set; see `isInTime`. */
export const SECONDS = 2
/** Peak memory, KiB. */
export const MEMORY = 250 * 1024

/** Seconds of the processor that `work` takes there. */
const REFERENCE = 0.024

/** A fixed piece of what the program does most: it reads numbers of tables, and makes objects of some. */
function work(): void {
  const table = new DataView(new ArrayBuffer(2 ** 19))
  let hash = 0
  for (let round = 0; round < 16; round++) {
    const found = new Map<number, { at: number; hash: number }>()
    for (let at = 0; at < table.byteLength; at += 8) {
      hash = (Math.imul(hash, 31) + table.getUint32(at) + at) >>> 0
      if (hash % 64 === 0) found.set(at, { at, hash })
    }
  }
}

/** Of the processor, seconds. */
function measure(): number {
  const before = process.cpuUsage()
  work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1e6
}

/**
 * How many times as long this machine takes at present as that one, at least 1: it may be a slower
 * one, or its processors may be shared with others.
 */
function slowness(): number {
  // The first time it is being compiled meanwhile.
  measure()
  return Math.max(1, measure() / REFERENCE)
}

/**
 * Whether work that took `cpu` seconds of the processor, just now, takes less than `limit` on the machine on which
 * limits were set. Only work that took longer here costs a measurement.
 */
export function isInTime(cpu: number, limit = SECONDS): boolean {
  return cpu < limit || cpu < limit * slowness()
}
