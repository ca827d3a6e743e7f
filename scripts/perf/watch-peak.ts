import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

/** Between two looks, milliseconds. */
const INTERVAL = 20

/** Watches what the files in a directory take together. */
export function watchPeak(directory: string): {
  /** Ends it. @returns the most that was seen, bytes */
  stop(): Promise<number>
} {
  let isOver = false
  let peak = 0
  const watch = async () => {
    while (!isOver) {
      let sum = 0
      for (const name of await readdir(directory)) {
        // It may have gone meanwhile.
        const { blocks } = await stat(join(directory, name)).catch(() => ({ blocks: 0 }))
        sum += blocks * 512
      }
      peak = Math.max(peak, sum)
      await pause(INTERVAL)
    }
  }
  const watching = watch()
  return {
    async stop() {
      isOver = true
      await watching
      return peak
    },
  }
}
