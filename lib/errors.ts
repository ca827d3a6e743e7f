import { showText } from './text.ts'

/** Codes by which a caller tells failures apart; stable, part of the public API. */
export type ErrorCode =
  /** Wrong option or argument; the command line ends with status 2. */
  | 'USAGE'
  /** The target's name is taken and `force` was not given. */
  | 'TARGET_EXISTS'
  /** The target cannot be used: is the source, a directory, or of the wrong kind. */
  | 'BAD_TARGET'
  /** An image's metadata is malformed. */
  | 'BAD_IMAGE'
  /** An image is sound but uses something that cannot be read (LUKS, an unknown feature …). */
  | 'UNSUPPORTED'
  /**
   * A bitmap cannot be used: it is missing, in use, out of date or of another size. The remedy is
   * a full backup and a new bitmap.
   */
  | 'BAD_BITMAP'
  /** The gate refused a file that an image names. */
  | 'NOT_ALLOWED'
  /** Another process has the image open, for something that does not go along with this. */
  | 'IN_USE'
  /** A file that should be an image's manifest is none. */
  | 'BAD_MANIFEST'
  /** What should be the same is not. */
  | 'DIFFERENT'
  /** The source changed its size while it was read. */
  | 'SOURCE_CHANGED'
  /** The operating system refused; `errno` holds its name. */
  | 'IO'
  /** The run was cancelled through its AbortSignal. */
  | 'ABORTED'

/**
 * Every failure that this library reports on purpose. The message is `WHAT: WHY`, WHAT naming the
 * file, offset or option; bytes of names that are not UTF-8 are shown as `\xNN` there, and kept as
 * they are in `what` and `why`.
 */
export class BackupError extends Error {
  override readonly name = 'BackupError'
  readonly code: ErrorCode
  /** The file, offset or option concerned. */
  readonly what: string
  /** The reason, without a closing full stop. */
  readonly why: string
  /** The system's name of the error (`ENOSPC`, `EACCES` …) where the system refused. */
  readonly errno?: string
  /** What QEMU says where it refuses the same, for the commands that print what it prints. */
  readonly qemu?: string

  constructor(
    code: ErrorCode,
    what: string,
    why: string,
    options: { cause?: unknown; errno?: string; qemu?: string } = {},
  ) {
    super(showText(`${what}: ${why}`), { cause: options.cause })
    this.code = code
    this.what = what
    this.why = why
    this.errno = options.errno
    this.qemu = options.qemu
  }
}

/** What a wrong argument gets; the command line ends with status 2. */
export function usageError(what: string, why: string): BackupError {
  return new BackupError('USAGE', what, why)
}

const REASONS: Record<string, string> = {
  ENOENT: 'no such file or directory',
  EACCES: 'permission denied',
  EPERM: 'operation not permitted',
  EISDIR: 'is a directory',
  ENOTDIR: 'a part of the path is not a directory',
  EROFS: 'read-only file system',
  ENOSPC: 'no space left on device',
  EDQUOT: 'disk quota exceeded',
  EFBIG: 'file too large for this file system or limit',
  EIO: 'input/output error',
  EEXIST: 'already exists',
  ELOOP: 'too many symbolic links',
  ENAMETOOLONG: 'file name too long',
  ENXIO: 'no such device or address',
  EMFILE: 'too many open files',
  ENOMEM: 'out of memory',
  ETIMEDOUT: 'timed out',
  ENOTCONN: 'the connection was lost',
  ECONNREFUSED: 'connection refused',
}

/** Puts a failed system call into words that name the file. Errors of ours pass unchanged. */
export function ioError(what: string, error: unknown): BackupError {
  if (error instanceof BackupError) return error
  const errno = (error as NodeJS.ErrnoException)?.code
  const why = (errno && REASONS[errno]) ?? (error instanceof Error ? error.message : String(error))
  return new BackupError('IO', what, why, { cause: error, errno })
}
