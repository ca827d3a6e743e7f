/** Numbers as QEMU reads them from its command line. Pure. */
import { QemuImgError, warningLine } from './messages.ts'
import { atLeast, hasDraftOptions, hasRewrittenOptions, type QemuVersion } from './version.ts'

/** A number; or the fault: not a number, or larger than 64 bits. */
export type ParsedNumber = bigint | 'invalid' | 'range'

const MAX_U64 = 2n ** 64n - 1n
/** By their letter, powers of 1024. */
const SUFFIXES = 'BKMGTPE'

/**
 * A size: bytes, or with a suffix B, K, M, G, T, P or E, of either case, before which there may be
 * a fraction (`qemu_strtosz`, which was rewritten for 8.1).
 */
export function parseSize(text: string, version: QemuVersion): ParsedNumber {
  const anew = atLeast(version, 8, 1)
  // Digits, of which none is needed before a point that others follow.
  const whole = anew ? String.raw`\d+(?:\.\d*)?|\.\d+` : String.raw`\d+(?:\.\d*)?`
  const match = new RegExp(`^\\s*\\+?(?:0x([\\da-f]+)|(${whole}))([bkmgtpe])?$`, 'i').exec(text)
  if (!match) return isBelow(text, anew) ? 'range' : 'invalid'
  const [, hexadecimal, decimal, suffix] = match
  if (hexadecimal !== undefined) {
    if (anew && suffix !== undefined) return 'invalid'
    return inRange(BigInt(`0x${hexadecimal}`) * scaleOf(suffix))
  }
  const [digits, decimals] = decimal.split('.')
  if (BigInt(digits) > MAX_U64) {
    // With a suffix it is read as a double, of which QEMU only uses the fraction.
    return decimals === undefined && suffix === undefined ? 'range' : 'invalid'
  }
  return scaled(BigInt(digits), Number(`0.${decimals ?? ''}0`), scaleOf(suffix), anew)
}

/** Whether it is a negative number without a suffix: older versions report only those of 64 bits. */
function isBelow(text: string, anew: boolean): boolean {
  const digits = /^\s*-(\d+|\.\d+)$/.exec(text)?.[1]
  return digits !== undefined && (anew || (!digits.startsWith('.') && BigInt(digits) > MAX_U64))
}

function scaleOf(suffix = 'B'): bigint {
  return 1024n ** BigInt(SUFFIXES.indexOf(suffix.toUpperCase()))
}

function inRange(bytes: bigint): bigint | 'range' {
  return bytes > MAX_U64 ? 'range' : bytes
}

/** @param fraction a double, as C reads it: of many nines it is 1 */
function scaled(whole: bigint, fraction: number, scale: bigint, anew: boolean): ParsedNumber {
  const fixed = BigInt(Math.floor(fraction * 2 ** 64))
  // Before 8.1 the fraction had 64 bits, of which one that is 1 leaves none.
  const bits = anew ? fixed : BigInt.asUintN(64, fixed)
  const carried = bits >> 64n === 1n
  // Fractions of a byte are not allowed.
  if (scale === 1n && !carried && (anew ? fraction !== 0 : bits !== 0n)) return 'invalid'
  return inRange(whole * scale + ((bits * scale + 2n ** 63n) >> 64n))
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
 * @param what name of the size, for the message
 * @throws QemuImgError
 */
export function sizeArgument(text: string, what: string, version: QemuVersion): bigint {
  const size = parseSize(text, version)
  if (size === 'invalid')
    throw new QemuImgError(`Invalid ${what} specified${invalid(text, version)}`)
  if (size === 'range' || size > MAX_SIZE) {
    throw new QemuImgError(`Invalid ${what} specified. Must be between 0 and ${MAX_SIZE}.`)
  }
  return size
}

function invalid(text: string, version: QemuVersion): string {
  if (hasRewrittenOptions(version)) return `: '${text}'${hasDraftOptions(version) ? '.' : ''}`
  return (
    '. You may use k, M, G, T, P or E suffixes for\n' +
    'qemu-img: kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.'
  )
}

/** QEMU's warning about a size that it accepts but discourages; '' if none. */
export function sizeWarning(text: string, version: QemuVersion): string {
  if (atLeast(version, 8, 1) || !/^\s*\+?0x[\da-f]+[kmgtp]/i.test(text)) return ''
  return warningLine(`Using a multiplier suffix on hex numbers is deprecated: ${text}`)
}
