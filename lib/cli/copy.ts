import type { CopyResult } from '../backup/types.ts'
import type { ControlOptions } from '../options.ts'
import type { Io } from './io.ts'
import { describeCopy } from './output.ts'
import type { OutputFlags } from './output-flags.ts'
import { printResult } from './print-result.ts'
import { runWithProgress } from './progress-display.ts'

/** Runs a copy for the command line, and prints its result. */
export async function runCopy(
  io: Io,
  flags: OutputFlags,
  copy: (control: ControlOptions) => Promise<CopyResult>,
): Promise<void> {
  const result = await runWithProgress(io, flags, copy)
  await printResult(io, flags, result, describeCopy)
}
