/** Numbers as QEMU reads them from its command line. Pure. */
import { QemuImgError } from './messages.ts'

/** A number; or why there is none: it is no number, or none that fits into 64 bits. */
export type ParsedNumber = bigint | 'invalid' | 'range'

const MAX_U64 = 2n ** 64n - 1n
/** By their letter, powers of 1024. */
const SUFFIXES = 'BKMGTPE'

/**
 * A size: bytes, or with a suffix B, K, M, G, T, P or E, of either case, before which there may be
 * a fraction (`qemu_strtosz`).
 */
export function parseSize(text: string): ParsedNumber {
  const match = /^\s*\+?(?:0x([\da-f]+)|(\d+)(\.\d*)?)([bkmgtpe])?$/i.exec(text)
  if (!match) return 'invalid'
  const [, hexadecimal, whole, decimals, suffix] = match
  const scale = 1024n ** BigInt(SUFFIXES.indexOf((suffix ?? 'B').toUpperCase()))
  const value = BigInt(hexadecimal === undefined ? whole : `0x${hexadecimal}`)
  if (value > MAX_U64) return 'range'
  // Of 64 bits, as QEMU has it.
  const fraction = decimals === undefined ? 0n : BigInt(Number(`0${decimals}`) * 2 ** 64)
  if (scale === 1n && fraction !== 0n) return 'invalid'
  const bytes = value * scale + ((fraction * scale + 2n ** 63n) >> 64n)
  return bytes > MAX_U64 ? 'range' : bytes
}

/** A number in C's notation, decimal, hexadecimal or octal (`qemu_strtou64`). */
export function parseNumber(text: string): ParsedNumber {
  const match = /^\s*([+-]?)(?:0x([\da-f]+)|0([0-7]*)|([1-9]\d*))$/i.exec(text)
  if (!match) return 'invalid'
  const [, sign, hexadecimal, octal, decimal] = match
  const value = BigInt(decimal ?? (hexadecimal === undefined ? `0o0${octal}` : `0x${hexadecimal}`))
  if (value > MAX_U64) return 'range'
  // As C's strtoull has it.
  return sign === '-' ? BigInt.asUintN(64, -value) : value
}

/** The largest size that an option of qemu-img takes. */
const MAX_SIZE = 2n ** 63n - 1n

/**
 * The value of an option that is a size, bytes.
 * @param what the size is, for the message
 * @throws QemuImgError
 */
export function sizeArgument(text: string, what: string): bigint {
  const size = parseSize(text)
  if (size === 'invalid') {
    const first = `Invalid ${what} specified. You may use k, M, G, T, P or E suffixes for`
    const second = 'kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.'
    throw new QemuImgError(`${first}\nqemu-img: ${second}`)
  }
  if (size === 'range' || size > MAX_SIZE) {
    throw new QemuImgError(`Invalid ${what} specified. Must be between 0 and ${MAX_SIZE}.`)
  }
  return size
}
