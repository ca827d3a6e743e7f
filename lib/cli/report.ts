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
  isGood(found: Found): boolean
  /** For people, if there are no findings. */
  nothing?: string
  /** The subject of the error if not all are good. */
  subject: string
  /** Wording after the count: `images are not good`. */
  failures: string
}

/**
 * Runs work that finds one thing after the other, and prints each as it comes; as JSON all of them at
 * the end.
 * @throws BackupError DIFFERENT if one is not good, after all were printed
 */
export async function printFindings<Found>(
  io: Io,
  flags: OutputFlags,
  find: (control: ControlOptions) => AsyncIterable<Found>,
  { describe, isGood, nothing, subject, failures }: Report<Found>,
): Promise<void> {
  const all: Found[] = []
  await runWithProgress(io, flags, async (control, display) => {
    for await (const one of find(control)) {
      all.push(one)
      // A line must not be drawn over by the bar, which may be on the same terminal.
      if (!flags.json) await display.around(() => io.stdout(humanLines(describe(one))))
    }
    if (nothing !== undefined && all.length === 0 && !flags.json) await io.stdout(`${nothing}\n`)
    if (flags.json) await display.around(() => io.stdout(`${JSON.stringify(all, null, 1)}\n`))
  })
  const bad = all.filter((one) => !isGood(one)).length
  if (bad === 0) return
  throw new BackupError('DIFFERENT', subject, `${bad} of ${all.length} ${failures}`)
}

/** Of findings that compare something with what it should be. */
export function isSame({ same }: { same: boolean }): boolean {
  return same
}
