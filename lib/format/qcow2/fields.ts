import { BackupError } from '../../errors.ts'

/** An image that cannot be true. */
export function badImage(path: string, why: string): BackupError {
  return new BackupError('BAD_IMAGE', path, why)
}

/** An image that may be sound, but which this version cannot read. */
export function unsupported(path: string, why: string): BackupError {
  return new BackupError('UNSUPPORTED', path, why)
}

/**
 * A 64-bit size or offset. No file system holds more than 2^53 − 1 bytes in a file, so what is
 * beyond cannot be true, and what is not is exact as a Number.
 * @param name the field's name, for the message
 * @throws BackupError BAD_IMAGE
 */
export function u64(buffer: Buffer, at: number, name: string, path: string): number {
  const value = buffer.readBigUInt64BE(at)
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw badImage(path, `${name} ${value} is too large`)
  return Number(value)
}

/** A string of fixed length that a NUL may end early, as C programs read it. */
export function cString(bytes: Buffer): string {
  const nul = bytes.indexOf(0)
  return bytes.toString('utf8', 0, nul < 0 ? bytes.length : nul)
}

/** An offset as messages show it. */
export function hex(offset: number): string {
  return `0x${offset.toString(16)}`
}

/** A name out of an image as messages show it: on one line, whatever it holds. */
export function quoted(name: string): string {
  return `'${name.replace(/\p{Cc}/gu, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`)}'`
}
