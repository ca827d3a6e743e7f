import { BackupError } from '../errors.ts'
import type { ControlOptions } from '../options.ts'
import type { Io } from './io.ts'
import type { OutputFlags } from './output-flags.ts'
import { humanLines } from './print-result.ts'
import { runWithProgress } from './progress-display.ts'

/** How findings are printed. */
export interface Report<Found> {
  /** One finding, in lines for people. */
  describe(found: Found): readonly string[]
  /** The subject of the error if not all are the same. */
  subject: string
  /** Wording after the count: `images are not good`. */
  failures: string
}

/**
 * Runs work that finds one thing after the other, and prints each as it comes; as JSON all of them at
 * the end.
 * @throws BackupError DIFFERENT if one is not the same, after all were printed
 */
export async function printFindings<Found extends { same: boolean }>(
  io: Io,
  flags: OutputFlags,
  find: (control: ControlOptions) => AsyncIterable<Found>,
  { describe, subject, failures }: Report<Found>,
): Promise<void> {
  const all: Found[] = []
  await runWithProgress(io, flags, async (control, display) => {
    for await (const one of find(control)) {
      all.push(one)
      // A line must not be drawn over by the bar, which may be on the same terminal.
      if (!flags.json) await display.around(() => io.stdout(humanLines(describe(one))))
    }
    if (flags.json) await display.around(() => io.stdout(`${JSON.stringify(all, null, 1)}\n`))
  })
  const different = all.filter(({ same }) => !same).length
  if (different === 0) return
  throw new BackupError('DIFFERENT', subject, `${different} of ${all.length} ${failures}`)
}
