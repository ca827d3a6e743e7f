/**
 * Rules for arguments: each checks a value, gives its TypeScript type, and defines for the command
 * line how to read a flag. Callers may be JavaScript, or pass on the content of a file; so a rule
 * takes anything, runs none of the caller's code but getters, and never guesses.
 */
import { argumentError } from './errors.ts'
import { shortSize } from './units.ts'

/** How the command line reads a value; `milliseconds` are written in seconds there. */
export type Form =
  | 'size'
  | 'count'
  | 'percent'
  | 'milliseconds'
  | 'text'
  | 'choice'
  | 'flag'
  | 'list'
  | 'none'

/** A rule for a value. */
export interface Rule<T> {
  readonly form: Form
  /** The words of a `choice`. */
  readonly choices?: readonly string[]
  /** The range of a number, in the unit of its flag: `1 to 16`, `a power of two from 512 to 2M`. */
  readonly range?: string
  /** Why a value is refused, to follow its name; undefined if it is not. */
  fault(value: unknown): string | undefined
  /**
   * Of a rule for lists or objects: a copy of the value, each part of which was read once, so that what is
   * checked is what is used, whatever the caller does with the value meanwhile. Of anything else the value.
   */
  own?(value: unknown): unknown
  /** JSON Schema of what passes, of a rule for what a file of JSON may hold. */
  readonly json?: JsonSchema
  /** Only for the compiler. */
  readonly type?: T
}

/** Of draft 2020-12. */
export type JsonSchema = Readonly<Record<string, unknown>>

/** An option: a rule and its help text. */
export interface OptionRule<T> extends Rule<T> {
  /** One line, without the range and the default. */
  readonly help: string
  /** The default, as help shows it. */
  readonly fallback?: string
  /** The name of its flag, where that is not the key in kebab case. */
  readonly flag?: string
  /** The letter of its short flag. */
  readonly letter?: string
  /** Name of its value in help, where the form is not enough: `dir` of `--allow-path <dir>`. */
  readonly value?: string
  /** The help of the flag that turns it off, `--no-…`, where there is one. */
  readonly off?: string
  /** The environment variable that replaces its flag. */
  readonly env?: string
}

/** Optional properties of an option. */
export type OptionDetails = Pick<
  OptionRule<unknown>,
  'fallback' | 'flag' | 'letter' | 'value' | 'off' | 'env'
>

export type Schema = Readonly<Record<string, OptionRule<unknown>>>

/** The type of the options that a schema describes. */
export type OptionsOf<S extends Schema> = {
  -readonly [K in keyof S]?: S[K] extends Rule<infer T> ? T : never
}

/** The schema of an options type: one rule for each of its keys, and of its type. */
export type SchemaFor<Options> = {
  readonly [K in keyof Required<Options>]: OptionRule<NonNullable<Options[K]>>
}

/** Gives a rule its help. */
export function option<T>(rule: Rule<T>, help: string, more: OptionDetails = {}): OptionRule<T> {
  return { ...rule, ...more, help }
}

function rule<T>(
  form: Form,
  fault: (value: unknown) => string | undefined,
  more: Pick<Rule<T>, 'choices' | 'range' | 'json'> = {},
): Rule<T> {
  return { form, fault, ...more }
}

/** A whole number. */
export function whole(
  min: number,
  max = Number.MAX_SAFE_INTEGER,
  form: 'count' | 'size' = 'count',
): Rule<number> {
  const unbounded = max === Number.MAX_SAFE_INTEGER
  const range = unbounded ? `of at least ${min}` : `from ${min} to ${max}`
  const isOne = (n: unknown) => Number.isSafeInteger(n) && Number(n) >= min && Number(n) <= max
  const fault = (n: unknown) => (isOne(n) ? undefined : `${show(n)} is not a whole number ${range}`)
  const json = { type: 'integer', minimum: min, maximum: max }
  return rule(form, fault, { range: unbounded ? undefined : `${min} to ${max}`, json })
}

/** A time in milliseconds. */
export function milliseconds(maxSeconds: number): Rule<number> {
  const { fault } = whole(1, maxSeconds * 1000)
  return rule('milliseconds', fault, { range: `1 to ${maxSeconds}` })
}

/** A share, per cent: more than nothing, and at most all. */
export const PERCENT: Rule<number> = rule('percent', (n) =>
  typeof n === 'number' && n > 0 && n <= 100
    ? undefined
    : `${show(n)} is not a percentage above 0, up to 100`,
)

/** A power of two, bytes. */
export function powerOfTwo(min: number, max: number): Rule<number> {
  const range = `a power of two from ${shortSize(min)} to ${shortSize(max)}`
  const isOne = (n: unknown) =>
    typeof n === 'number' && Number.isInteger(Math.log2(n)) && n >= min && n <= max
  const fault = (n: unknown) => (isOne(n) ? undefined : `${show(n)} is not ${range}`)
  return rule('size', fault, { range })
}

/** One of some words. */
export function choice<const W extends string>(...choices: readonly W[]): Rule<W> {
  const fault = (value: unknown) =>
    choices.includes(value as W) ? undefined : `${show(value)} is not one of ${choices.join(', ')}`
  return rule('choice', fault, { choices, json: { enum: choices } })
}

export const BOOLEAN: Rule<boolean> = rule(
  'flag',
  (value) => (typeof value === 'boolean' ? undefined : `${show(value)} is neither true nor false`),
  { json: { type: 'boolean' } },
)

/** A SHA-256 in hexadecimal, with colons between its bytes or without. */
export const SHA256: Rule<string> = rule('text', (text) =>
  typeof text === 'string' && /^[0-9a-f]{2}(?::?[0-9a-f]{2}){31}$/i.test(text)
    ? undefined
    : `${show(text)} is not a SHA-256: 64 hexadecimal digits, with colons or without`,
)

/** A name or an id. QEMU takes what follows a zero byte of a name for nothing. */
export const TEXT: Rule<string> = rule(
  'text',
  (value) => {
    if (typeof value !== 'string') return `${show(value)} is not a string`
    return value.includes('\0') ? 'contains a NUL byte' : undefined
  },
  { json: { type: 'string', pattern: '^[^\\u0000]*$' } },
)

/**
 * A text of a certain form.
 * @param pattern of all of it
 * @param what follows `is not` in messages
 */
export function matching(pattern: RegExp, what: string): Rule<string> {
  const fault = (value: unknown) =>
    TEXT.fault(value) ??
    (pattern.test(value as string) ? undefined : `${show(value)} is not ${what}`)
  return rule('text', fault, { json: { ...TEXT.json, allOf: [{ pattern: pattern.source }] } })
}

/** A rule whose JSON Schema says what the value is for. */
export function described<T>(one: Rule<T>, description: string): Rule<T> {
  return { ...one, json: { ...one.json, description } }
}

export const BYTES: Rule<Uint8Array> = rule('none', (value) =>
  value instanceof Uint8Array ? undefined : `${show(value)} is not a Uint8Array`,
)

/** The name of a file or device. The system would ignore everything after a zero byte. */
export const PATH: Rule<string> = rule('text', (value) => {
  if (typeof value !== 'string') return `${show(value)} is not a path`
  if (value === '') return 'the name is empty'
  return value.includes('\0') ? 'contains a NUL byte' : undefined
})

/** A list; a string is none, though its characters could be taken for one. */
export function list<T>(item: Rule<T>): Rule<readonly T[]> {
  return {
    form: 'list',
    json: { type: 'array', items: item.json },
    fault(value) {
      if (!Array.isArray(value)) return `${show(value)} is not an array`
      for (const [i, one] of value.entries()) {
        const fault = item.fault(one)
        if (fault !== undefined) return `[${i}]: ${fault}`
      }
      return undefined
    },
    // No more than up to the first fault: an array of no items may have any length.
    own(value) {
      if (!Array.isArray(value)) return value
      const copy: unknown[] = []
      const { length } = value
      for (let i = 0; i < length; i++) {
        copy.push(ownOf(item, value[i]))
        if (item.fault(copy[i]) !== undefined) break
      }
      return copy
    },
  }
}

// biome-ignore lint/suspicious/noExplicitAny: any function will do, its parameters are ours
export function callback<F extends (...args: any[]) => unknown>(): Rule<F> {
  return rule('none', (value) =>
    typeof value === 'function' ? undefined : `${show(value)} is not a function`,
  )
}

export const SIGNAL: Rule<AbortSignal> = rule('none', (value) =>
  value instanceof AbortSignal ? undefined : `${show(value)} is not an AbortSignal`,
)

/**
 * An object with certain keys; `optional` may be missing, others may not be there. If it is `open` others
 * are ignored.
 */
export function record<T>(
  required: Readonly<Record<string, Rule<unknown>>>,
  optional: Readonly<Record<string, Rule<unknown>>> = {},
  { open = false }: { open?: boolean } = {},
): Rule<T> {
  const known = { ...required, ...optional }
  const [must, may] = [Object.entries(required), Object.entries(optional)]
  return {
    form: 'none',
    json: {
      type: 'object',
      required: Object.keys(required),
      properties: Object.fromEntries(Object.entries(known).map(([key, one]) => [key, one.json])),
      ...(!open && { additionalProperties: false }),
    },
    fault(value) {
      if (!isRecord(value)) return `${show(value)} is not an object`
      for (const [key, one] of must) {
        const fault = one.fault(value[key])
        if (fault !== undefined)
          return value[key] === undefined ? `${key} is missing` : `${key}: ${fault}`
      }
      for (const [key, one] of may) {
        const fault = value[key] === undefined ? undefined : one.fault(value[key])
        if (fault !== undefined) return `${key}: ${fault}`
      }
      const unknown = open
        ? undefined
        : keysOf(value).find((key) => !Object.hasOwn(known, key) && value[key] !== undefined)
      return unknown === undefined ? undefined : `unknown field ${show(unknown)}`
    },
    own(value) {
      if (!isRecord(value)) return value
      const copy: Record<string, unknown> = Object.create(null)
      for (const key of new Set([...Object.keys(known), ...(open ? [] : keysOf(value))])) {
        const given = value[key]
        // A method goes on being one of the object.
        if (typeof given === 'function') copy[key] = Function.prototype.bind.call(given, value)
        else if (given !== undefined) copy[key] = ownOf(known[key], given)
      }
      return copy
    },
  }
}

/** An object with any keys, all with values of one kind. */
export function dictionary<T>(item: Rule<T>): Rule<Readonly<Record<string, T>>> {
  return rule(
    'none',
    (value) => {
      if (!isRecord(value)) return `${show(value)} is not an object`
      for (const [key, one] of Object.entries(value)) {
        const fault = item.fault(one)
        if (fault !== undefined) return `${show(key)}: ${fault}`
      }
      return undefined
    },
    { json: { type: 'object', additionalProperties: item.json } },
  )
}

/** A value that any of several rules accepts. */
export function either<A, B>(what: string, a: Rule<A>, b: Rule<B>): Rule<A | B> {
  return {
    form: a.form,
    fault(value) {
      if (a.fault(value) === undefined || b.fault(value) === undefined) return undefined
      return `${show(value)} is ${what}`
    },
    own: (value) => ownOf(b, ownOf(a, value)),
  }
}

function ownOf(one: Rule<unknown> | undefined, value: unknown): unknown {
  return one?.own ? one.own(value) : value
}

/** Values that nobody can change. */
type Plain = string | number | boolean | ((...args: never[]) => unknown)

/**
 * Checks an argument.
 * @throws BackupError USAGE naming it
 */
export function checkArgument<T extends Plain>(name: string, one: Rule<T>, value: unknown): T {
  return ownArgument(name, one, value)
}

/**
 * Checks an argument that is a list or an object.
 * @returns a copy, which is the one to use: see Rule.own
 * @throws BackupError USAGE naming it
 */
export function ownArgument<T>(name: string, one: Rule<T>, value: unknown): T {
  const own = readable(name, () => ownOf(one, value))
  const fault = readable(name, () => one.fault(own))
  if (fault !== undefined) throw argumentError(name, fault)
  return own as T
}

/**
 * Checks the options of a call. Each is read once and copied, so that the checked value is the one used, and
 * nothing is inherited from a prototype that others may have written to.
 * @returns those that were given; undefined counts as not given
 * @throws BackupError USAGE naming the option
 */
export function checkOptions<S extends Schema>(schema: S, value: unknown): OptionsOf<S> {
  const checked = Object.create(null)
  if (value === undefined) return checked
  if (!isRecord(value)) throw argumentError('options', `${show(value)} is not an object`)
  for (const key of readable('options', () => keysOf(value))) {
    const given = readable(key, () => value[key])
    if (given === undefined) continue
    if (!Object.hasOwn(schema, key)) throw argumentError(key, 'there is no such option')
    checked[key] = ownArgument(key, schema[key], given)
  }
  return checked
}

/** Runs code that may call a getter or a proxy of the caller's. */
function readable<T>(name: string, read: () => T): T {
  try {
    return read()
  } catch (error) {
    const refused = argumentError(name, 'cannot be read: its getter throws')
    refused.cause = error
    throw refused
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The enumerable keys of an object, with those of its class, but not of all objects. */
function keysOf(value: object): string[] {
  const keys = new Set<string>()
  for (let at = value; at && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const key of Object.keys(at)) keys.add(key)
  }
  return [...keys]
}

const MAX_SHOWN = 60

/** A value in a message. No method of it is called. */
export function show(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return `'${value.length > MAX_SHOWN ? `${value.slice(0, MAX_SHOWN)}…` : value}'`
    case 'bigint':
      return `${value}n`
    case 'function':
      return 'a function'
    case 'symbol':
      return 'a symbol'
    case 'object':
      return value === null ? 'null' : Array.isArray(value) ? 'an array' : 'an object'
    default:
      return String(value)
  }
}
