import type { CopyOptions, CopyResult } from '../backup/types.ts'
import type { Io } from './io.ts'
import { type CopyFlags, copyOptions } from './options.ts'
import { formatResult } from './output.ts'
import { openProgress } from './progress.ts'

/**
 * Runs a copy for the command line: with progress, stopped by signals, its result printed.
 * @param copy starts the copy with the options given it
 */
export async function runCopy(
  io: Io,
  flags: CopyFlags,
  copy: (options: CopyOptions) => Promise<CopyResult>,
): Promise<void> {
  const progress = await openProgress(flags.progress, io)
  const result = await io.interruptible(async (signal) => {
    try {
      return await copy({ ...copyOptions(flags), signal, onProgress: progress.update })
    } finally {
      progress.close()
    }
  })
  await io.stdout(flags.json ? `${JSON.stringify(result)}\n` : formatResult(result))
}
