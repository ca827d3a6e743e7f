/** Doing things while the program copies. */
import { type CliResult, runCli } from './cli.ts'

/**
 * Runs a copy that reads 8 MiB a second, and does something else as soon as it is under way.
 * @param cwd where it runs
 * @returns how it ended, and the last line of its stderr, where its progress goes too
 */
export async function meanwhile(
  cwd: string,
  args: readonly string[],
  action: () => void,
): Promise<CliResult & { line: string }> {
  let acted = false
  const result = await runCli([...args, '--rate-limit', '8M', '--progress', 'json'], {
    cwd,
    onStderr() {
      if (!acted) action()
      acted = true
    },
  })
  return { ...result, line: result.stderr.trimEnd().split('\n').at(-1)! }
}
