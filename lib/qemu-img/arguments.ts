import {
  type GivenOption,
  isIn,
  type OptionSpec,
  type Reading,
  readOptions,
  usageError,
} from './getopt.ts'
import { QemuImgError } from './messages.ts'
import { sizeArgument, sizeWarning } from './sizes.ts'
import {
  hasDraftOptions,
  hasRewrittenOptions,
  NEWEST,
  parseVersion,
  type QemuVersion,
} from './version.ts'

/** How images are opened, as the command line says. */
export interface ImageAccess {
  /** `--allow-path`. */
  allowPaths: string[]
  /** `--backing-format`: of backing files whose image does not record it. */
  backingFormat?: string
  /** `-U`: other processes may have the image open. */
  forceShare: boolean
}

/** Parsed arguments of a command. */
export interface Arguments {
  /** The command's own options in their order. */
  options: GivenOption[]
  operands: string[]
  /** The value of an option, where it was given more than once the last. */
  get(name: string): string | undefined
  has(name: string): boolean
  /** The version whose output is wanted. */
  version: QemuVersion
  /** A wrong use that qemu-img only sees after reading all arguments. */
  usageError(message: string): QemuImgError
  /** How images are opened, whichever command it is. */
  access: ImageAccess
}

/**
 * Options of every qemu-img command that reads an image. They follow the command's
 * own, which is the order in which messages name them.
 */
const COMMON: readonly OptionSpec[] = [
  { name: 'help', letter: 'h' },
  { name: 'force-share', letter: 'U' },
  { name: 'image-opts' },
  { name: 'object', value: true },
]

const OURS: readonly OptionSpec[] = [
  { name: 'qemu-version', value: true, ours: true },
  { name: 'allow-path', value: true, ours: true },
  { name: 'backing-format', value: true, ours: true },
  { name: 'debug', ours: true },
]

/** `--output`, of every command that prints a result. */
export const OUTPUT: OptionSpec = {
  name: 'output',
  value: true,
  judge(value, reading) {
    // Older versions look at it later: see wantsJson.
    if (!hasRewrittenOptions(reading.version) || value === 'human' || value === 'json') return
    throw notOneOf('--output', "'human' or 'json'", value, reading)
  },
}

/** An option whose value is a size. */
export function sizeOption(
  spec: Pick<OptionSpec, 'name' | 'letter' | 'letterIn'>,
  what: string,
): OptionSpec {
  return {
    ...spec,
    value: true,
    judge(value, { version, warn }) {
      const warning = sizeWarning(value, version)
      if (warning !== '') warn(warning)
      sizeArgument(value, what, version)
    },
  }
}

/** The words of versions with rewritten options for a value that is not one of a few. */
export function notOneOf(
  option: string,
  words: string,
  value: string,
  reading: Reading,
): QemuImgError {
  const comma = hasDraftOptions(reading.version) ? '' : ','
  return usageError(`${option} expects ${words}${comma} not '${value}'`, reading)
}

/**
 * Reads a command line as the version of qemu-img does that is asked for.
 * @param command the name, for messages
 * @param options those of the command besides `-h`, `-U`, `--object` and `--image-opts`
 * @param common `forceShare`: whether the command has `-U`; default: it has. `warn`: receives warnings
 * about arguments that are accepted
 * @throws QemuImgError in qemu-img's words, HelpRequest
 */
export function parseArguments(
  command: string,
  argv: readonly string[],
  options: readonly OptionSpec[],
  { forceShare = true, warn = () => {} }: { forceShare?: boolean; warn?: Reading['warn'] } = {},
): Arguments {
  const version = versionIn(argv)
  const common = COMMON.filter(({ name }) => forceShare || name !== 'force-share')
  const known = [...options, ...common].filter((spec) => spec.ours || isIn(spec, version))
  const theirs = new Set(known.flatMap(({ name }) => name))
  const specs = [...OURS.filter(({ name }) => !theirs.has(name)), ...known]
  const given = [...readOptions({ command, version, warn }, argv, specs)]
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
    version,
    usageError: (message) => usageError(message, { command, version }),
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

/** The version that is asked for: which options there are depends on it, so it is looked for first. */
function versionIn(argv: readonly string[]): QemuVersion {
  const end = argv.indexOf('--')
  const options = end < 0 ? argv : argv.slice(0, end)
  const asked = options.flatMap((argument, i) => {
    if (argument === '--qemu-version') return argv.slice(i + 1, i + 2)
    return argument.startsWith('--qemu-version=') ? [argument.slice('--qemu-version='.length)] : []
  })
  return versionOf(asked.at(-1))
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
