import type { Command } from 'commander'
import { printTopics } from '../log.ts'
import { type Io, STANDARD } from './io.ts'
import { OutputClosed } from './print.ts'
import { isQemuImgCommand, runQemuImg } from './qemu-img.ts'

/**
 * Runs the command line. Results are on stdout and an error is one line on stderr when it returns.
 * @param given returns the arguments after the program's name
 * @param io output streams and signal; default: the process's own
 * @returns the exit status
 */
export async function run(given: () => readonly string[], io: Io = STANDARD): Promise<number> {
  let argv: readonly string[] = []
  let command: Command | undefined
  try {
    argv = given()
    if (argv.includes('--debug')) printTopics('*')
    const args = rearranged(argv)
    const [name, ...rest] = args
    if (isQemuImgCommand(name)) return await runQemuImg(name, rest, io)
    // Loaded only now: qemu-img's commands take 10 ms and must not wait for it.
    const { buildProgram } = await import('./program.ts')
    let help = ''
    const program = buildProgram(io, (text) => {
      help += text
    })
    command = program.commands.find((one) => one.name() === name)
    try {
      await program.parseAsync(args, { from: 'user' })
    } finally {
      if (help) await io.stdout(help)
    }
    return 0
  } catch (error) {
    // The reader stopped reading (`extents … | head`).
    if (error instanceof OutputClosed) return 0
    const { describeError, exitStatus } = await import('./describe-error.ts')
    const { namingOf } = await import('./wording.ts')
    const line = describeError(error, namingOf(command))
    if (line !== undefined) {
      io.stderr(`qcow2-backup: ${line}\n`)
      if (argv.includes('--debug')) io.stderr(`${stackOf(error)}\n`)
    }
    return exitStatus(error)
  }
}

/**
 * `help` and `help COMMAND` mean `--help` and `COMMAND --help`; `--debug` before the command equals
 * `--debug` after it.
 */
function rearranged(argv: readonly string[]): string[] {
  if (argv[0] === 'help') return [...argv.slice(1, 2), '--help']
  const at = argv.findIndex((argument) => argument !== '--debug')
  return [...argv.slice(at, at + 1), ...argv.slice(0, Math.max(at, 0)), ...argv.slice(at + 1)]
}

/** The stacks of an error and its causes. */
function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const cause = error.cause === undefined ? '' : `\ncaused by ${stackOf(error.cause)}`
  return `${error.stack}${cause}`
}
