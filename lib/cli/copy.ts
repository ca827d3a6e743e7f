import type { CopyResult } from '../backup/types.ts'
import type { ControlOptions } from '../options.ts'
import type { Io } from './io.ts'
import { formatResult } from './output.ts'
import type { OutputFlags } from './output-flags.ts'
import { runWithProgress } from './progress-display.ts'

/** Runs a copy for the command line, and prints its result. */
export async function runCopy(
  io: Io,
  flags: OutputFlags,
  copy: (control: ControlOptions) => Promise<CopyResult>,
): Promise<void> {
  const result = await runWithProgress(io, flags, copy)
  await io.stdout(flags.json ? `${JSON.stringify(result)}\n` : formatResult(result))
}
