/**
 * A fault that a decoder finds. Decoders are pure and know no file; the caller that read the bytes
 * names it, with `inFile`.
 */
import { BackupError } from '../errors.ts'

/** Bytes that cannot be decoded. */
export class FormatError extends Error {
  override readonly name = 'FormatError'
  readonly code: 'BAD_IMAGE' | 'UNSUPPORTED'
  /** QEMU's message, where it refuses the same. */
  readonly qemu?: string

  constructor(code: FormatError['code'], why: string, qemu?: string) {
    super(why)
    this.code = code
    this.qemu = qemu
  }
}

/**
 * Bytes that break the format.
 * @param qemu QEMU's message, where it refuses them too
 */
export function malformed(why: string, qemu?: string): FormatError {
  return new FormatError('BAD_IMAGE', why, qemu)
}

/** Bytes that may be sound, but which this version does not know. */
export function notSupported(why: string, qemu?: string): FormatError {
  return new FormatError('UNSUPPORTED', why, qemu)
}

/**
 * Decodes bytes that were read from a file.
 * @throws BackupError naming the file, for a FormatError of the decoder
 */
export function inFile<T>(path: string, decode: () => T): T {
  try {
    return decode()
  } catch (error) {
    if (!(error instanceof FormatError)) throw error
    const { code, message, qemu } = error
    throw new BackupError(code, path, message, { qemu })
  }
}
