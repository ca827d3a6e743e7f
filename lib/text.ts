/**
 * Names of files, in images and of bitmaps. They are UTF-8 as a rule, but may be any bytes, and two
 * different names must stay different: a byte that belongs to no character becomes one of the code
 * units U+DC80 to U+DCFF, which mean nothing else when alone (as Python's `surrogateescape`
 * has it).
 */

const ESCAPE = 0xdc00

/** Code units that represent a byte. A surrogate that is one of a pair does not match. */
const ESCAPED = /[\udc80-\udcff]/u
export const ESCAPED_RUN = /[\udc80-\udcff]+/gu

/** The text for some bytes; `encodeText` turns it back into exactly these bytes. */
export function decodeText(bytes: Buffer): string {
  const text = bytes.toString('utf8')
  return text.includes('\ufffd') ? decodeEach(bytes) : text
}

/** The bytes of a text. */
export function encodeText(text: string): Buffer {
  if (!ESCAPED.test(text)) return Buffer.from(text)
  const parts = Array.from(text, (character) =>
    ESCAPED.test(character) ? Buffer.of(character.charCodeAt(0) - ESCAPE) : Buffer.from(character),
  )
  return Buffer.concat(parts)
}

/** A text for messages: bytes that belong to no character are shown as `\xNN`. */
export function showText(text: string): string {
  return text.replace(ESCAPED_RUN, (run) => encodeText(run).toString('hex').replace(/../g, '\\x$&'))
}

function decodeEach(bytes: Buffer): string {
  let text = ''
  for (let at = 0; at < bytes.length; ) {
    const character = bytes.subarray(at, at + sequenceLength(bytes[at]))
    const decoded = character.toString('utf8')
    if (Buffer.from(decoded).equals(character)) {
      text += decoded
      at += character.length
    } else {
      text += String.fromCharCode(ESCAPE + bytes[at])
      at++
    }
  }
  return text
}

/** Bytes of the character that begins with this one. */
function sequenceLength(first: number): number {
  if (first < 0xc0) return 1
  if (first < 0xe0) return 2
  return first < 0xf0 ? 3 : 4
}

/** A text of nothing but visible ASCII: most are, and a table has a hundred thousand of them. */
const PLAIN = /^[ -~]*$/

/**
 * Makes a text safe to print as one line: names of files are anyone's, and may hold line breaks,
 * terminal commands, characters that reverse the writing direction, or bytes that are not UTF-8.
 */
export function oneLine(text: string): string {
  if (PLAIN.test(text)) return text
  return showText(text).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = character.codePointAt(0)!
    return code < 0x100
      ? `\\x${code.toString(16).padStart(2, '0')}`
      : `\\u{${code.toString(16).padStart(4, '0')}}`
  })
}

/** A ticket of imageio in a URL, after its first characters: it is a password. */
const TICKET = /(\bhttps?(?:\+unix)?:\/\/[^/\s]*\/images\/[^/?#\s]{8})[^/?#\s…]+/gi

/** A text for messages, without the tickets of imageio in it. */
export function hideTickets(text: string): string {
  return text.replace(TICKET, '$1…')
}

/** A list in a message: `'a', 'b' and 7 more`. */
export function listed<T>(items: readonly T[], most: number, show: (item: T) => string): string {
  const more = items.length - most
  return items.slice(0, most).map(show).join(', ') + (more > 0 ? ` and ${more} more` : '')
}

/** An offset as messages show it. */
export function hex(offset: number): string {
  return `0x${offset.toString(16)}`
}

/** A name out of an image as messages show it: on one line, whatever it holds. */
export function quoted(name: string): string {
  return `'${showText(name).replace(/\p{Cc}/gu, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`)}'`
}
