import { QemuImgError, QemuImgUsageError } from './messages.ts'
import { NEWEST, parseVersion, type QemuVersion } from './version.ts'

/** An option that a command takes. */
export interface OptionSpec {
  /** What it is called in the result: its long name, or its letter where it has no other. */
  readonly name: string
  readonly letter?: string
  /** Takes a value. */
  readonly value?: boolean
}

/** An option that was given. */
export interface GivenOption {
  name: string
  /** Of one that takes a value. */
  value: string
}

/** How images are opened, as the command line says. */
export interface ImageAccess {
  /** `--allow-path`. */
  allowPaths: string[]
  /** `--backing-format`: of backing files whose image does not record it. */
  backingFormat?: string
  /** `-U`: other processes may have the image open. */
  forceShare: boolean
}

/** What a command was given. */
export interface Arguments {
  /** The command's own options in their order. */
  options: GivenOption[]
  operands: string[]
  /** The value of an option, where it was given more than once the last. */
  get(name: string): string | undefined
  has(name: string): boolean
  /** The version whose output is wanted. */
  version: QemuVersion
  /** How images are opened, whichever command it is. */
  access: ImageAccess
}

/** `-h`, `--help`: no error, but no more is read after it. */
export class HelpRequest extends Error {
  override readonly name = 'HelpRequest'
}

/** Options that every command of qemu-img's that reads an image has. */
const COMMON: readonly OptionSpec[] = [
  { name: 'help', letter: 'h' },
  { name: 'object', value: true },
  { name: 'image-opts' },
  { name: 'force-share', letter: 'U' },
]

/** Those that qemu-img lacks. They must be written in full: its own abbreviations stay what they are. */
const OURS: readonly OptionSpec[] = [
  { name: 'qemu-version', value: true },
  { name: 'allow-path', value: true },
  { name: 'backing-format', value: true },
  { name: 'debug' },
]

/**
 * Reads a command line as qemu-img does, that is as glibc's getopt_long does: operands anywhere,
 * letters in a cluster, `-fraw`, `--output=json` and `--output json`, unambiguous beginnings of long
 * names, and `--`.
 * @param command the name, for messages
 * @param options those of the command besides `-h`, `-U`, `--object` and `--image-opts`
 * @param common `forceShare`: whether the command has `-U`; default: it has
 * @throws QemuImgError in qemu-img's words, HelpRequest
 */
export function parseArguments(
  command: string,
  argv: readonly string[],
  options: readonly OptionSpec[],
  { forceShare = true }: { forceShare?: boolean } = {},
): Arguments {
  const common = COMMON.filter(({ name }) => forceShare || name !== 'force-share')
  const given = [...readOptions(command, argv, [...common, ...options])]
  const operands = given.flatMap((item) => (typeof item === 'string' ? [item] : []))
  const all = given.filter((item) => typeof item !== 'string')
  const values = (name: string) => all.filter((option) => option.name === name)
  const get = (name: string) => values(name).at(-1)?.value
  const has = (name: string) => values(name).length > 0
  if (has('image-opts')) throw unsupported('image-opts', 'name the image, and its format with -f')
  if (has('object')) throw unsupported('object', 'encrypted images can only be described')
  return {
    options: all,
    operands,
    get,
    has,
    version: versionOf(get('qemu-version')),
    access: {
      allowPaths: values('allow-path').map(({ value }) => value),
      backingFormat: get('backing-format'),
      forceShare: has('force-share'),
    },
  }
}

/**
 * Whether `--output` asks for JSON.
 * @throws QemuImgError for another word than `json` and `human`
 */
export function wantsJson(args: Arguments): boolean {
  const output = args.get('output') ?? 'human'
  if (output === 'json') return true
  if (output === 'human') return false
  throw new QemuImgError('--output must be used with human or json as argument.')
}

function versionOf(text: string | undefined): QemuVersion {
  if (text === undefined) return NEWEST
  const version = parseVersion(text)
  if (!version) {
    throw new QemuImgError(`--qemu-version: '${text}' is not a version; write it like 7.2`)
  }
  return version
}

function unsupported(option: string, remedy: string): QemuImgError {
  return new QemuImgError(`--${option}: not supported; ${remedy}`)
}

/** Options and operands in their order. */
function* readOptions(
  command: string,
  argv: readonly string[],
  specs: readonly OptionSpec[],
): Generator<GivenOption | string> {
  // What stands before the argument that is looked at: getopt moves operands behind the options.
  let before = command
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
        ? readLong(argument, argv[at + 1], specs)
        : readCluster(argument, argv[at + 1], specs, operand ?? before)
      if (found.tookNext) at++
      for (const option of found.options) {
        if (option.name === 'help') throw new HelpRequest()
        yield option
      }
      if (found.error) throw found.error
    }
    before = argv[at]
  }
}

/** What one argument holds; options may come before an error. */
interface Found {
  options: GivenOption[]
  /** The next argument is the value of the last one. */
  tookNext?: boolean
  error?: QemuImgError
}

function readLong(argument: string, next: string | undefined, specs: readonly OptionSpec[]): Found {
  const [, typed, inline] = /^--([^=]*)(?:=(.*))?$/s.exec(argument)!
  const spec = OURS.find(({ name }) => name === typed) ?? findLong(typed, specs)
  if (!spec || (inline !== undefined && !spec.value)) return unrecognized(argument)
  if (!spec.value) return { options: [{ name: spec.name, value: '' }] }
  const value = inline ?? next
  if (value === undefined) return missing(argument)
  return { options: [{ name: spec.name, value }], tookNext: inline === undefined }
}

/** The long option that a name or an unambiguous beginning means. */
function findLong(typed: string, specs: readonly OptionSpec[]): OptionSpec | undefined {
  const long = specs.filter(({ name }) => name.length > 1)
  const matches = long.filter(({ name }) => name.startsWith(typed))
  return long.find(({ name }) => name === typed) ?? (matches.length === 1 ? matches[0] : undefined)
}

/** @param before what qemu-img names in a message while the cluster goes on: a slip of its own */
function readCluster(
  argument: string,
  next: string | undefined,
  specs: readonly OptionSpec[],
  before: string,
): Found {
  const options: GivenOption[] = []
  for (let i = 1; i < argument.length; i++) {
    const rest = argument.slice(i + 1)
    const spec = specs.find(({ letter }) => letter === argument[i])
    if (!spec) return { ...unrecognized(rest ? before : argument), options }
    if (spec.value) {
      const value = rest || next
      if (value === undefined) return { ...missing(argument), options }
      options.push({ name: spec.name, value })
      return { options, tookNext: rest === '' }
    }
    options.push({ name: spec.name, value: '' })
  }
  return { options }
}

function unrecognized(argument: string): Found {
  return { options: [], error: new QemuImgUsageError(`unrecognized option '${argument}'`) }
}

function missing(argument: string): Found {
  return { options: [], error: new QemuImgUsageError(`missing argument for option '${argument}'`) }
}
