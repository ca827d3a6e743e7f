/** How qemu-img reads its command line, and its words for a mistake in it. */
import { type QemuImgError, QemuImgUsageError } from './messages.ts'
import { hasDraftOptions, hasRewrittenOptions, type QemuVersion } from './version.ts'

/** Whether a version of qemu-img has something. */
type In = (version: QemuVersion) => boolean

/** An option that a command takes. */
export interface OptionSpec {
  /** Its key in the result, and its long name. */
  readonly name: string
  /** Another name that it has in the result. */
  readonly means?: string
  readonly letter?: string
  /** Takes a value. */
  readonly value?: boolean
  /** Which versions know it by its long name, and by its letter. Default: all. */
  readonly longIn?: In
  readonly letterIn?: In
  /** qemu-img lacks it. It must be written in full: qemu-img's own abbreviations stay what they are. */
  readonly ours?: boolean
  /** Checks a value as it is read, before later arguments; throws for a wrong one. */
  readonly judge?: (value: string, reading: Reading) => void
}

/** Parameters of parsing a command line. */
export interface Reading {
  /** The command's name. */
  command: string
  version: QemuVersion
  /** Receives messages after which qemu-img continues. */
  warn: (text: string) => void
}

/** An option that was given. */
export interface GivenOption {
  name: string
  /** Of one that takes a value. */
  value: string
}

/** `-h`, `--help`: no error, but no more is read after it. */
export class HelpRequest extends Error {
  override readonly name = 'HelpRequest'
}

/** An error after which qemu-img points to its help, in the version's way. */
export function usageError(
  message: string,
  reading: Pick<Reading, 'command' | 'version'>,
): QemuImgError {
  return new QemuImgUsageError(message, helpOf(reading))
}

function helpOf({ command, version }: Pick<Reading, 'command' | 'version'>): { help?: string } {
  if (!hasRewrittenOptions(version)) return {}
  const more = hasDraftOptions(version) ? 'info' : 'information'
  return { help: `Try 'qemu-img ${command} --help' for more ${more}` }
}

/** Whether a version knows an option by any name. */
export function isIn(spec: OptionSpec, version: QemuVersion): boolean {
  return hasLong(spec, version) || hasLetter(spec, version)
}

function hasLong({ longIn }: OptionSpec, version: QemuVersion): boolean {
  return longIn?.(version) ?? true
}

function hasLetter({ letter, letterIn }: OptionSpec, version: QemuVersion): boolean {
  return letter !== undefined && (letterIn?.(version) ?? true)
}

/**
 * Reads a command line as glibc's getopt_long does, and qemu-img with it: operands anywhere, letters
 * in a cluster, `-fraw`, `--output=json` and `--output json`, unambiguous beginnings of long names,
 * and `--`.
 * @param specs options that the version knows
 * @returns options and operands in their order
 * @throws QemuImgError in qemu-img's words, HelpRequest
 */
export function* readOptions(
  reading: Reading,
  argv: readonly string[],
  specs: readonly OptionSpec[],
): Generator<GivenOption | string> {
  // Operands before the current argument: getopt moves them after the options.
  let before = reading.command
  let operand: string | undefined
  for (let at = 0; at < argv.length; at++) {
    const argument = argv[at]
    if (argument === '--') {
      yield* argv.slice(at + 1)
      return
    }
    if (argument === '-' || !argument.startsWith('-')) {
      operand = argument
      yield argument
    } else {
      const found = argument.startsWith('--')
        ? readLong(argument, argv[at + 1], specs, reading)
        : readCluster(argument, argv[at + 1], specs, reading, operand ?? before)
      if (found.tookNext) at++
      // Of our options qemu-img knows nothing.
      if (found.options.some(({ spec }) => spec.ours)) {
        yield* found.options.map(({ spec, value }) => ({ name: spec.name, value }))
        continue
      }
      for (const { spec, value } of found.options) {
        if (spec.name === 'help') throw new HelpRequest()
        spec.judge?.(value, reading)
        yield { name: spec.means ?? spec.name, value }
      }
      if (found.error) throw found.error
    }
    before = argv[at]
  }
}

/** The options in one argument; options may come before an error. */
interface Found {
  options: { spec: OptionSpec; value: string }[]
  /** The next argument is the value of the last one. */
  tookNext?: boolean
  error?: QemuImgError
}

function readLong(
  argument: string,
  next: string | undefined,
  specs: readonly OptionSpec[],
  reading: Reading,
): Found {
  const [, typed, inline] = /^--([^=]*)(?:=(.*))?$/s.exec(argument)!
  const long = specs.filter((spec) => spec.ours || hasLong(spec, reading.version))
  const matches = findLong(typed, long)
  const wrong = new WrongOption(argument, reading)
  if (matches.length > 1) return wrong.ambiguous(matches)
  const [spec] = matches
  if (!spec) return wrong.unrecognized()
  if (inline !== undefined && !spec.value) return wrong.takesNoValue(spec)
  if (!spec.value) return { options: [{ spec, value: '' }] }
  const value = inline ?? next
  if (value === undefined) return wrong.lacksValue(spec)
  return { options: [{ spec, value }], tookNext: inline === undefined }
}

/** The long options that a name or a beginning may mean. */
function findLong(typed: string, long: readonly OptionSpec[]): readonly OptionSpec[] {
  const exact = long.find(({ name }) => name === typed)
  return exact ? [exact] : long.filter(({ name, ours }) => !ours && name.startsWith(typed))
}

/** @param before the part that 7.2 names in a message inside a cluster of options: a slip of its own */
function readCluster(
  argument: string,
  next: string | undefined,
  specs: readonly OptionSpec[],
  reading: Reading,
  before: string,
): Found {
  const options: Found['options'] = []
  const letters = specs.filter((spec) => hasLetter(spec, reading.version))
  for (let i = 1; i < argument.length; i++) {
    const rest = argument.slice(i + 1)
    const spec = letters.find(({ letter }) => letter === argument[i])
    if (!spec) {
      const wrong = new WrongOption(rest ? before : argument, reading)
      return { ...wrong.unrecognized(argument[i]), options }
    }
    if (spec.value) {
      const value = rest || next
      if (value === undefined) {
        return { ...new WrongOption(argument, reading).lacksValue(spec, spec.letter), options }
      }
      options.push({ spec, value })
      return { options, tookNext: rest === '' }
    }
    options.push({ spec, value: '' })
  }
  return { options }
}

/** The words for an argument that cannot be taken. */
class WrongOption {
  readonly #argument: string
  readonly #reading: Reading

  constructor(argument: string, reading: Reading) {
    this.#argument = argument
    this.#reading = reading
  }

  unrecognized(letter?: string): Found {
    const old = `unrecognized option '${this.#argument}'`
    return this.#found(old, letter === undefined ? old : `invalid option -- '${letter}'`)
  }

  ambiguous(matches: readonly OptionSpec[]): Found {
    const names = matches.map(({ name }) => `'--${name}'`).join(' ')
    const option = `option '${this.#argument}'`
    return this.#found(`unrecognized ${option}`, `${option} is ambiguous; possibilities: ${names}`)
  }

  takesNoValue({ name }: OptionSpec): Found {
    const old = `unrecognized option '${this.#argument}'`
    return this.#found(old, `option '--${name}' doesn't allow an argument`)
  }

  lacksValue({ name }: OptionSpec, letter?: string): Found {
    const option = letter === undefined ? `option '--${name}' requires an argument` : undefined
    return this.#found(
      `missing argument for option '${this.#argument}'`,
      option ?? `option requires an argument -- '${letter}'`,
    )
  }

  /** @param rewritten the words of versions with rewritten options, which are getopt's */
  #found(old: string, rewritten: string): Found {
    const { command, version } = this.#reading
    const error = hasRewrittenOptions(version)
      ? new QemuImgUsageError(rewritten, {
          ...helpOf(this.#reading),
          program: `qemu-img ${command}`,
        })
      : new QemuImgUsageError(old)
    return { options: [], error }
  }
}
