import { describeError, exitStatus } from './errors.ts'
import { OutputClosed } from './output.ts'
import { buildProgram } from './program.ts'

/**
 * Runs the command line. Results are on stdout and an error is one line on stderr when it returns.
 * @param argv the arguments after the program's name
 * @returns the exit status
 */
export async function run(argv: readonly string[]): Promise<number> {
  try {
    await buildProgram().parseAsync(helpFirst(argv), { from: 'user' })
    return 0
  } catch (error) {
    // The reader has all it wants (`extents … | head`).
    if (error instanceof OutputClosed) return 0
    const line = describeError(error)
    if (line !== undefined) {
      process.stderr.write(`qcow2-backup: ${line}\n`)
      if (argv.includes('--debug')) process.stderr.write(`${stackOf(error)}\n`)
    }
    return exitStatus(error)
  }
}

/** `help` and `help COMMAND` mean `--help` and `COMMAND --help`. */
function helpFirst(argv: readonly string[]): string[] {
  return argv[0] === 'help' ? [...argv.slice(1, 2), '--help'] : [...argv]
}

/** The stack of an error and of what caused it. */
function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const cause = error.cause === undefined ? '' : `\ncaused by ${stackOf(error.cause)}`
  return `${error.stack}${cause}`
}
