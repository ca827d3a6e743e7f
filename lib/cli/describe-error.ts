import { CommanderError } from 'commander'
import { isBackupError } from '../errors.ts'
import { oneLine } from '../text.ts'
import { Interrupted } from './signals.ts'
import { type Naming, wordError } from './wording.ts'

/**
 * An error in one line, `WHAT: WHY`.
 * @param naming the failed command's names for the library's arguments
 * @returns undefined for `--help` and `--version`, which are not errors
 */
export function describeError(
  error: unknown,
  naming: Naming = () => undefined,
): string | undefined {
  if (error instanceof CommanderError) {
    return error.exitCode === 0 ? undefined : oneLine(describeUsage(error))
  }
  if (error instanceof Interrupted) return describeInterrupted(error, naming)
  if (isBackupError(error)) return oneLine(wordError(error, naming))
  const message = error instanceof Error ? error.message : String(error)
  return oneLine(`internal error: ${message} (--debug shows where)`)
}

/** The exit status that an error ends the program with: 0, 1, 2, or 128 and the signal's number. */
export function exitStatus(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
  if (error instanceof Interrupted) return error.status
  return isBackupError(error) && error.code === 'USAGE' ? 2 : 1
}

/** After a signal the run may still fail for a reason of its own, which is then worth saying. */
function describeInterrupted({ cause }: Interrupted, naming: Naming): string | undefined {
  if (isBackupError(cause) && cause.code === 'ABORTED') {
    return oneLine(cause.message)
  }
  return describeError(cause, naming)
}

/** commander's messages, in the form that all errors of this program have. */
const USAGE: readonly [RegExp, (...groups: string[]) => string][] = [
  [/^unknown option '(.*)'$/s, (option) => `${option}: unknown option`],
  [/^unknown command '(.*)'$/s, (command) => `${command}: unknown command`],
  [/^missing required argument '(.*)'$/, (argument) => `${argument.toUpperCase()}: missing`],
  [/^option '(.*)' argument missing$/, (flags) => `${longFlag(flags)}: needs a value`],
  [/Expected (\d+) arguments? but got (\d+)/, (n, got) => `arguments: expected ${n}, got ${got}`],
  [
    /^option '(.*?)' (?:argument|value) '(.*?)'(?: from env '(.*)')? is invalid\..* are (.*)\.$/s,
    (flags, value, env, choices) =>
      `${env ?? longFlag(flags)}: '${value}' is not one of ${choices}`,
  ],
]

function describeUsage(error: CommanderError): string {
  if (error.code === 'commander.help') return 'COMMAND: missing; qcow2-backup --help lists them'
  const message = error.message.replace(/^error: /, '')
  for (const [pattern, describe] of USAGE) {
    const match = pattern.exec(message)
    if (match) return describe(...match.slice(1))
  }
  return `arguments: ${message}`
}

/** `-f, --format <format>` → `--format` */
function longFlag(flags: string): string {
  return /--[\w-]+/.exec(flags)?.[0] ?? flags
}
