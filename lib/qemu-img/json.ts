import { ESCAPED_RUN, encodeText } from '../text.ts'

/** A value of QEMU's JSON; numbers of more than 53 bits are bigints. */
export type JsonValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue | undefined }

const INDENT = '    '
const ESCAPES: Record<string, string> = {
  '"': '\\"',
  '\\': '\\\\',
  '\b': '\\b',
  '\f': '\\f',
  '\n': '\\n',
  '\r': '\\r',
  '\t': '\\t',
}

/**
 * A value as QEMU prints it (its qobject/json-writer.c, "pretty"), with a line feed at its end. Keys
 * keep their order; those whose value is undefined are left out.
 */
export function formatJson(value: JsonValue): string {
  return `${format(value, '')}\n`
}

function format(value: JsonValue, indent: string): string {
  if (typeof value === 'string') return quote(value)
  if (value === null || typeof value !== 'object') return String(value)
  const inner = indent + INDENT
  // An empty list takes two lines, too.
  const lines = (items: string[]) =>
    `${items.map((item) => `\n${inner}${item}`).join(',')}\n${indent}`
  if (isList(value)) return `[${lines(value.map((item) => format(item, inner)))}]`
  const members = Object.entries(value).flatMap(([key, member]) =>
    member === undefined ? [] : [`${quote(key)}: ${format(member, inner)}`],
  )
  return `{${lines(members)}}`
}

/** `Array.isArray` does not distinguish a readonly array from an object. */
function isList(value: object): value is readonly JsonValue[] {
  return Array.isArray(value)
}

/** A string in ASCII, in double quotes. */
function quote(text: string): string {
  let out = ''
  for (const character of text.replace(ESCAPED_RUN, replaceBytes)) {
    out += ESCAPES[character] ?? escapeCharacter(character)
  }
  return `"${out}"`
}

/**
 * QEMU's reading of bytes that are not characters: where one could begin, an unknown one,
 * with all that could belong to it.
 */
function replaceBytes(run: string): string {
  const bytes = encodeText(run).toString('latin1')
  // A NUL in two bytes is one, so that C's strings can hold it.
  return bytes.replace(SEQUENCE, (sequence) => (sequence === '\xc0\x80' ? '\0' : '\ufffd'))
}

/** Bytes that could begin a character, each with as many following bytes as it announces. */
const SEQUENCE = new RegExp(
  [
    '[\xc0-\xdf][\x80-\xbf]?',
    '[\xe0-\xef][\x80-\xbf]{0,2}',
    '[\xf0-\xf7][\x80-\xbf]{0,3}',
    '[\xf8-\xfb][\x80-\xbf]{0,4}',
    '[\xfc\xfd][\x80-\xbf]{0,5}',
    '[\xfe\xff\x80-\xbf]',
  ].join('|'),
  'g',
)

function escapeCharacter(character: string): string {
  const code = character.codePointAt(0)!
  if (code >= 0x20 && code < 0x7f) return character
  // QEMU does not accept Unicode's noncharacters.
  if (isNoncharacter(code)) return '\\uFFFD'
  return Array.from({ length: character.length }, (_, i) => unit(character.charCodeAt(i))).join('')
}

function isNoncharacter(code: number): boolean {
  return (code & 0xfffe) === 0xfffe || (code >= 0xfdd0 && code <= 0xfdef)
}

function unit(code: number): string {
  return `\\u${code.toString(16).toUpperCase().padStart(4, '0')}`
}
