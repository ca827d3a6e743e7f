/** The peak of this process's memory during one of many pieces of work. To be run with --expose-gc. */
import { readFileSync, writeFileSync } from 'node:fs'

/** Memory that work may leave to what comes after it as garbage, bytes: collecting it takes its time. */
const MOST_LEFT = 100 * 2 ** 20

/** The peak is counted from here on, without what the work before left. */
export function resetPeak(): void {
  if (process.memoryUsage.rss() > MOST_LEFT) global.gc!()
  writeFileSync('/proc/self/clear_refs', '5')
}

/** Peak memory, KiB. */
export function peakMemory(): number {
  const [, kibibytes] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'latin1'))!
  return Number(kibibytes)
}
