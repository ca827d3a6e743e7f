import { BackupError } from '../../errors.ts'
import { decodeText, showText } from '../../text.ts'

/**
 * An image that cannot be true.
 * @param qemu what QEMU says of it, where it refuses it too
 */
export function badImage(path: string, why: string, qemu?: string): BackupError {
  return new BackupError('BAD_IMAGE', path, why, { qemu })
}

/** An image that may be sound, but which this version cannot read. */
export function unsupported(path: string, why: string, qemu?: string): BackupError {
  return new BackupError('UNSUPPORTED', path, why, { qemu })
}

/**
 * A 64-bit size or offset. One that a number cannot hold, which is beyond what any file has, is
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

/** An offset as messages show it. */
export function hex(offset: number): string {
  return `0x${offset.toString(16)}`
}

/** A name out of an image as messages show it: on one line, whatever it holds. */
export function quoted(name: string): string {
  return `'${showText(name).replace(/\p{Cc}/gu, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`)}'`
}
