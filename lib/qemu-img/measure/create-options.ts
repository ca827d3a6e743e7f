import { parseNumber, parseSize } from '../sizes.ts'
import { atLeast, type QemuVersion } from '../version.ts'

/** `-o` as QEMU's command line has it: `name=value,…`, in which a comma is written twice. */

/** How QEMU reads the value of an option. */
export type Kind = 'text' | 'flag' | 'size' | 'number'

/** The options that there are, by their names. */
export type Known = Readonly<Record<string, Kind>>

/** The formats that can be measured. */
export type OutputFormat = 'raw' | 'qcow2'

/** Options of creating a file, which every format has. */
const FILE: Known = {
  size: 'size',
  nocow: 'flag',
  preallocation: 'text',
  extent_size_hint: 'size',
}

const CREATE_OPTIONS: Readonly<Record<OutputFormat, Known>> = {
  raw: FILE,
  qcow2: {
    ...FILE,
    encryption: 'flag',
    'encrypt.format': 'text',
    'encrypt.key-secret': 'text',
    'encrypt.cipher-alg': 'text',
    'encrypt.cipher-mode': 'text',
    'encrypt.ivgen-alg': 'text',
    'encrypt.ivgen-hash-alg': 'text',
    'encrypt.hash-alg': 'text',
    'encrypt.iter-time': 'number',
    cluster_size: 'size',
    lazy_refcounts: 'flag',
    refcount_bits: 'number',
    compression_type: 'text',
    compat: 'text',
    backing_file: 'text',
    backing_fmt: 'text',
    data_file: 'text',
    data_file_raw: 'flag',
    extended_l2: 'flag',
  },
}

/** The options of creating an image that a version has. */
export function createOptions(format: OutputFormat, version: QemuVersion): Known {
  const known = CREATE_OPTIONS[format]
  const keeps = format === 'qcow2' && atLeast(version, 11, 0)
  return keeps ? { ...known, keep_data_file: 'flag' } : known
}

/** QEMU's message for a wrong `-o`; may have several lines. */
export class OptionError extends Error {}

/** Whether a list neither is empty nor begins or ends with a comma that separates. */
export function isOptionList(list: string): boolean {
  const commas = /,*$/.exec(list)![0].length
  return list !== '' && !list.startsWith(',') && commas % 2 === 0
}

/**
 * The options in a list, the last of each name.
 * @throws OptionError for one that is not known, or a value that it cannot have
 */
export function parseOptions(
  list: string,
  known: Known,
  version: QemuVersion,
): Map<string, string> {
  const options = new Map<string, string>()
  for (const [name, value] of split(list)) {
    if (name === 'id') continue
    const kind = Object.hasOwn(known, name) ? known[name] : undefined
    if (kind === undefined) throw new OptionError(`Invalid parameter '${name}'`)
    requireValue(name, value, kind, version)
    options.set(name, value)
  }
  return options
}

function* split(list: string): Generator<[string, string]> {
  for (let at = 0; at < list.length; ) {
    const name = /^[^=,]*/.exec(list.slice(at))![0]
    at += name.length
    if (list[at] === '=') {
      const value = /^(?:[^,]|,,)*/.exec(list.slice(at + 1))![0]
      at += 1 + value.length
      yield [name, value.replaceAll(',,', ',')]
    } else {
      yield name.startsWith('no') ? [name.slice(2), 'off'] : [name, 'on']
    }
    // The comma after it.
    at++
  }
}

function requireValue(name: string, value: string, kind: Kind, version: QemuVersion): void {
  if (kind === 'flag' && flag(value) === undefined) {
    throw new OptionError(`Parameter '${name}' expects 'on' or 'off'`)
  }
  if (kind === 'number') {
    const number = parseNumber(value)
    if (number === 'invalid') throw new OptionError(`Parameter '${name}' expects a number`)
    if (number === 'range')
      throw new OptionError(`Value '${value}' is too large for parameter '${name}'`)
  }
  if (kind === 'size') {
    const size = parseSize(value, version)
    if (size === 'range')
      throw new OptionError(`Value '${value}' is out of range for parameter '${name}'`)
    if (size === 'invalid') {
      throw new OptionError(
        `Parameter '${name}' expects a non-negative number below 2^64\n` +
          'Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n' +
          'and exabytes, respectively.',
      )
    }
  }
}

/** A flag as QEMU spells it; undefined if it is none. */
export function flag(value: string): boolean | undefined {
  if (['on', 'yes', 'true', 'y'].includes(value)) return true
  if (['off', 'no', 'false', 'n'].includes(value)) return false
  return undefined
}
