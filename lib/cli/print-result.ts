import type { CommandIo } from '../qemu-img/command.ts'
import { oneLine } from '../text.ts'

/**
 * Lines for people. The names of files and bitmaps in them may be anyone's: each line stays one, and
 * holds nothing that a terminal obeys.
 */
export function humanLines(lines: readonly string[]): string {
  return lines.map((line) => `${oneLine(line)}\n`).join('')
}

/** Prints a result as one JSON object, or in lines for people. */
export async function printResult<Result>(
  io: CommandIo,
  { json }: { json?: boolean },
  result: Result,
  describe: (result: Result) => readonly string[],
): Promise<void> {
  await io.stdout(json ? `${JSON.stringify(result)}\n` : humanLines(describe(result)))
}
