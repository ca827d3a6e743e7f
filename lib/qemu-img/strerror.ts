import type { BackupError } from '../errors.ts'

/** Texts of C's strerror; other codes are rare and self-explanatory. */
const STRERROR: Record<string, string> = {
  EPERM: 'Operation not permitted',
  ENOENT: 'No such file or directory',
  EIO: 'Input/output error',
  ENXIO: 'No such device or address',
  EACCES: 'Permission denied',
  EBUSY: 'Device or resource busy',
  ENODEV: 'No such device',
  ENOTDIR: 'Not a directory',
  EISDIR: 'Is a directory',
  EINVAL: 'Invalid argument',
  EMFILE: 'Too many open files',
  ENAMETOOLONG: 'File name too long',
  ELOOP: 'Too many levels of symbolic links',
  ENOMEDIUM: 'No medium found',
  EFBIG: 'File too large',
  ENOSPC: 'No space left on device',
  EROFS: 'Read-only file system',
  ETXTBSY: 'Text file busy',
}

/** An error about the content of an image in QEMU's words, or in ours where QEMU knows no such. */
export function describeImageError(error: BackupError): string {
  return error.qemu ?? strerror(error.errno) ?? error.why
}

/**
 * Why a file could not be opened, in QEMU's words.
 * @param filename as QEMU names it
 */
export function describeOpenError(filename: string, error: BackupError): string {
  if (error.code === 'UNSUPPORTED' || error.errno === 'EISDIR') {
    return `'file' driver requires '${filename}' to be a regular file`
  }
  // Of the gate, which QEMU lacks.
  if (error.code !== 'IO') return error.why
  return `Could not open '${filename}': ${strerror(error.errno) ?? error.why}`
}

/** strerror's text for the name of an error, if it is a known one. */
export function strerror(errno: string | undefined): string | undefined {
  return STRERROR[errno ?? '']
}
