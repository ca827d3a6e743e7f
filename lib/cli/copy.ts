import type { CopyOptions, CopyResult } from '../backup/types.ts'
import { type CopyFlags, copyOptions } from './options.ts'
import { formatResult } from './output.ts'
import { print } from './print.ts'
import { openProgress } from './progress.ts'
import { interruptible } from './signals.ts'

/**
 * Runs a copy for the command line: with progress, stopped by signals, its result printed.
 * @param copy starts the copy with the options given it
 */
export async function runCopy(
  flags: CopyFlags,
  copy: (options: CopyOptions) => Promise<CopyResult>,
): Promise<void> {
  const progress = await openProgress(flags.progress)
  const result = await interruptible(async (signal) => {
    try {
      return await copy({ ...copyOptions(flags), signal, onProgress: progress.update })
    } finally {
      progress.close()
    }
  })
  if (flags.debug) {
    const direct = result.direct ? 'past' : 'through'
    process.stderr.write(`engine ${result.engine}, written ${direct} the page cache\n`)
  }
  await print(flags.json ? `${JSON.stringify(result)}\n` : formatResult(result))
}
