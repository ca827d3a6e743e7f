import { decodeText } from '../../text.ts'

/**
 * A 64-bit size or offset. A value above the safe integers, larger than any file, is
 * Infinity: out of every bound, and aligned to nothing.
 */
export function u64(buffer: Buffer, at: number): number {
  const value = buffer.readBigUInt64BE(at)
  const rounded = Number(value)
  return BigInt(rounded) === value ? rounded : Number.POSITIVE_INFINITY
}

/** A string of fixed length that a NUL may end early, as C programs read it. */
export function cString(bytes: Buffer): string {
  const nul = bytes.indexOf(0)
  return decodeText(nul < 0 ? bytes : bytes.subarray(0, nul))
}
