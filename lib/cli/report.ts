import { BackupError } from '../errors.ts'
import type { Io } from './io.ts'

/** How findings are printed. */
export interface ReportFlags {
  json?: boolean
}

/**
 * Prints findings as they come, as JSON all of them at the end.
 * @param about what the error names
 * @param what are counted as not being so
 * @throws BackupError DIFFERENT if one is not, after all were printed
 */
export async function printFindings<Found extends { same: boolean }>(
  io: Io,
  found: AsyncIterable<Found>,
  { json }: ReportFlags,
  tell: (found: Found) => string,
  about: string,
  what: string,
): Promise<void> {
  const all: Found[] = []
  for await (const one of found) {
    all.push(one)
    if (!json) await io.stdout(tell(one))
  }
  if (json) await io.stdout(`${JSON.stringify(all, null, 1)}\n`)
  const different = all.filter(({ same }) => !same).length
  if (different === 0) return
  throw new BackupError('DIFFERENT', about, `${different} of ${all.length} ${what}`)
}
