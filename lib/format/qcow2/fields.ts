import { decodeText } from '../../text.ts'

/**
 * A 64-bit size or offset. A value above the safe integers, larger than any file, is
 * Infinity: out of every bound, and aligned to nothing.
 */
export function u64(buffer: Buffer, at: number): number {
  const high = buffer.readUInt32BE(at)
  // Almost all are: a bigint takes far longer, and a directory may have thousands.
  if (high < 2 ** 21) return high * 2 ** 32 + buffer.readUInt32BE(at + 4)
  const value = buffer.readBigUInt64BE(at)
  const rounded = Number(value)
  return BigInt(rounded) === value ? rounded : Number.POSITIVE_INFINITY
}

/** A string of fixed length that a NUL may end early, as C programs read it. */
export function cString(bytes: Buffer): string {
  const nul = bytes.indexOf(0)
  return decodeText(nul < 0 ? bytes : bytes.subarray(0, nul))
}
