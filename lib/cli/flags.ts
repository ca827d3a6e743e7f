/**
 * Flags made from the option schemas of the library: the schema of an option gives the name of
 * its flag, its parser, its choices and its help. Here texts become values; whether a value is
 * allowed is for the library to judge, which is also called by others.
 */
import { type Command, Option } from 'commander'
import { argumentError } from '../errors.ts'
import type { OptionRule, OptionsOf, Rule, Schema } from '../schema.ts'
import { parseSize } from '../units.ts'

/** The flag of an option of the library. */
export class Flag extends Option {
  /** The option's key. */
  readonly key: string

  constructor(key: string, flags: string, help: string) {
    super(flags, help)
    this.key = key
  }

  /** `--no-checkpoint`, of an option of its own, is not the opposite of `--checkpoint NAME`. */
  override attributeName(): string {
    return this.negate && this.key.startsWith('no') ? this.key : super.attributeName()
  }
}

/** Name of an option's flag, without dashes. */
export function flagName(key: string, { flag }: { flag?: string } = {}): string {
  return flag ?? key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
}

/** Declares a flag for each option that a command line can give; callbacks and signals have none. */
export function addFlags(command: Command, schema: Schema): Command {
  for (const [key, rule] of Object.entries(schema)) {
    for (const flag of flagsOf(key, rule)) command.addOption(flag)
  }
  return command
}

/** The options that flags of `addFlags` gave, by their keys. */
export function optionsFrom<S extends Schema>(flags: object, schema: S): OptionsOf<S> {
  const given = new Map(Object.entries(flags))
  const values: Record<string, unknown> = {}
  for (const [key, rule] of Object.entries(schema)) {
    const [flag] = flagsOf(key, rule)
    const value = flag && given.get(flag.attributeName())
    // Of `noHole` the flag is `--no-hole`, which commander has as false.
    values[key] = flag?.negate && rule.off === undefined ? value === false || undefined : value
  }
  return values as OptionsOf<S>
}

/** Two flags for an option that can be turned on and off. */
function flagsOf(key: string, rule: OptionRule<unknown>): Flag[] {
  const name = flagName(key, rule)
  const short = rule.letter === undefined ? '' : `-${rule.letter}, `
  if (rule.form === 'none') return []
  if (rule.form === 'flag') {
    const on = new Flag(key, `${short}--${name}`, describe(rule))
    const off = rule.off === undefined ? [] : [new Flag(key, `--no-${name}`, rule.off)]
    // An option that is on by default can only be turned off.
    return rule.fallback === 'on' ? off : [on, ...off]
  }
  const flag = new Flag(
    key,
    `${short}--${name} <${rule.value ?? VALUES[rule.form]}>`,
    describe(rule),
  )
  if (rule.form === 'choice') flag.choices([...rule.choices!])
  else flag.argParser(parserOf(key, rule))
  if (rule.env !== undefined) flag.env(rule.env)
  return [flag]
}

function describe({ help, range, fallback }: OptionRule<unknown>): string {
  const text = range === undefined ? help : `${help}, ${range}`
  return fallback === undefined ? text : `${text} (default: ${fallback})`
}

/** Names in help for values of each form. */
const VALUES = {
  size: 'size',
  count: 'n',
  percent: 'percent',
  milliseconds: 'seconds',
  text: 'name',
  choice: 'word',
  list: 'item',
} as const

function parserOf(key: string, rule: Rule<unknown>): (text: string, before: unknown) => unknown {
  switch (rule.form) {
    case 'size':
      return (text) => sizeOf(key, text)
    case 'count':
      return (text) => countOf(key, text)
    case 'percent':
      return (text) => percentOf(key, text)
    case 'milliseconds':
      return (text) => secondsOf(key, rule, text) * 1000
    case 'list':
      return (text, before = []) => [...(before as string[]), text]
    default:
      return (text) => text
  }
}

function sizeOf(key: string, text: string): number {
  const size = parseSize(text)
  if (size !== undefined) return size
  throw argumentError(key, `'${text}' is not a size; write bytes or 64K, 1M, 2G, 1T`)
}

function countOf(key: string, text: string): number {
  if (/^\d{1,15}$/.test(text)) return Number(text)
  throw argumentError(key, `'${text}' is not a whole number`)
}

function percentOf(key: string, text: string): number {
  const number = /^(\d{1,3}(?:\.\d{1,9})?)%?$/.exec(text)?.[1]
  if (number !== undefined) return Number(number)
  throw argumentError(key, `'${text}' is not a percentage; write 5% or 0.5%`)
}

/** The library would name its limits in milliseconds. */
function secondsOf(key: string, rule: Rule<unknown>, text: string): number {
  const seconds = countOf(key, text)
  if (rule.fault(seconds * 1000) === undefined) return seconds
  throw argumentError(key, `'${text}' is not a number of seconds from ${rule.range}`)
}
