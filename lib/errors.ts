import { hideTickets, showText } from './text.ts'

/** Codes by which a caller distinguishes failures; stable, part of the public API. */
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
  /** Another process has the image open in a conflicting way. */
  | 'IN_USE'
  /** A file that should be an image's manifest is not one. */
  | 'BAD_MANIFEST'
  /** A file of a repository is not what its name says: a record, or the mark of a repository. */
  | 'BAD_RECORD'
  /** Content differs from the content expected. */
  | 'DIFFERENT'
  /** The source changed its size while it was read. */
  | 'SOURCE_CHANGED'
  /** The operating system refused; `errno` holds its name. */
  | 'IO'
  /** The run was cancelled through its AbortSignal, whose reason is the error's `cause`. */
  | 'ABORTED'
  /** The native addon is not installed, or not one that this version can use. */
  | 'ADDON_MISSING'
  /** A function that the caller passed has thrown; the exception is the error's `cause`. */
  | 'CALLBACK'
  /** A fault of this library, or out of memory; `cause` is the exception. */
  | 'INTERNAL'

/**
 * The option that gets the caller past a failure, by its key in the library's options. It is data,
 * so that each caller can word it its own way; the command line says `--force replaces it`.
 */
export type Hint =
  | 'force'
  | 'forceShare'
  | 'allowPaths'
  | 'backingFormat'
  | 'baselineFormat'
  | 'format'
  | 'timeoutMs'

/** Optional fields of a BackupError; see there. */
export interface BackupErrorOptions {
  cause?: unknown
  errno?: string
  hint?: Hint
  hintValue?: string
  argument?: string
  qemu?: string
}

/** Marks our errors, whichever copy of this package made them. */
const BRAND = Symbol.for('qcow2-backup.BackupError')

/** The first line of an error's stack, which survives where other fields are lost. */
const HEADING = /^BackupError \[([A-Z_]+)(?: ([A-Z][A-Z0-9]*))?\]: /

/**
 * Every failure that this library reports. The message is `WHAT: WHY`, WHAT naming the file, offset
 * or argument. Use `isBackupError` to recognise one: it also knows those of another copy of this
 * package, and those that came from another thread. Bytes of names that are not UTF-8 are shown as
 * `\xNN` in the message, and kept as they are in `what` and `why`.
 */
export class BackupError extends Error {
  override readonly name = 'BackupError'
  readonly code: ErrorCode
  /** The file, offset or argument concerned. */
  readonly what: string
  /** The reason, without a closing full stop. */
  readonly why: string
  /** The system's name of the error (`ENOSPC`, `EACCES` …) where the system refused. */
  declare readonly errno?: string
  /** The option that gets past this failure, where one does. */
  declare readonly hint?: Hint
  /** The value that this option needs, where it is known: for `allowPaths` a directory. */
  declare readonly hintValue?: string
  /** Of a wrong argument: the name of the parameter, or the key of the option. */
  declare readonly argument?: string
  /** QEMU's message for the same fault, for the commands that print QEMU's output. */
  declare readonly qemu?: string

  constructor(code: ErrorCode, what: string, why: string, options: BackupErrorOptions = {}) {
    const [shownWhat, shownWhy] = [hideTickets(what), hideTickets(why)]
    super(showText(`${shownWhat}: ${shownWhy}`), { cause: options.cause })
    this.code = code
    this.what = shownWhat
    this.why = shownWhy
    const { cause: _, ...rest } = options
    for (const [key, value] of Object.entries(rest)) {
      // Undefined fields are left out of the error as logs show it.
      if (value !== undefined) Object.defineProperty(this, key, { value, enumerable: true })
    }
    setHeading(this)
  }

  get [BRAND](): true {
    return true
  }
}

/** Gives the stack a first line from which `isBackupError` can restore the error. */
export function setHeading(error: BackupError): void {
  const { code, errno, message, stack = '' } = error
  const frames = /\n {4}at .*$/s.exec(stack)?.[0] ?? ''
  const heading = `BackupError [${errno === undefined ? code : `${code} ${errno}`}]: ${message}`
  Object.defineProperty(error, 'stack', {
    value: heading + frames,
    writable: true,
    configurable: true,
  })
}

/**
 * Whether a value is a BackupError, also one made by another copy of this package, thrown in a worker
 * thread, or posted between threads. Structured cloning keeps only the message, stack and cause of an
 * error; `code`, `what`, `why` and `errno` of such a clone are restored here. Never throws.
 */
export function isBackupError(value: unknown): value is BackupError {
  try {
    if (typeof value !== 'object' || value === null) return false
    if (value instanceof BackupError || BRAND in value) return true
    const { name, code, stack, message } = value as Partial<Record<string, unknown>>
    if (name === 'BackupError' && typeof code === 'string') return true
    if (!(value instanceof Error) && Object.prototype.toString.call(value) !== '[object Error]') {
      return false
    }
    const heading = HEADING.exec(String(stack))
    if (!heading || !String(stack).startsWith(heading[0] + message)) return false
    restore(value, heading[1], heading[2], String(message))
    return true
  } catch {
    // A proxy or a getter that throws.
    return false
  }
}

function restore(clone: object, code: string, errno: string | undefined, message: string): void {
  const [, what, why] = /^(.*?): (.*)$/s.exec(message) ?? ['', '', message]
  const fields = { name: 'BackupError', code, what, why, ...(errno !== undefined && { errno }) }
  for (const [key, value] of Object.entries(fields)) {
    Object.defineProperty(clone, key, {
      value,
      enumerable: true,
      writable: true,
      configurable: true,
    })
  }
}

/** A call that is wrong about something that is named as given, such as a URI. */
export function usageError(what: string, why: string): BackupError {
  return new BackupError('USAGE', what, why)
}

/**
 * A wrong argument.
 * @param argument the name of the parameter, or the key of the option
 */
export function argumentError(argument: string, why: string): BackupError {
  return new BackupError('USAGE', argument, why, { argument })
}

/**
 * A malformed image.
 * @param qemu QEMU's message, where QEMU refuses the same
 */
export function badImage(path: string, why: string, qemu?: string): BackupError {
  return new BackupError('BAD_IMAGE', path, why, { qemu })
}

/** An image that may be sound, but which this version cannot read. */
export function unsupported(path: string, why: string, qemu?: string): BackupError {
  return new BackupError('UNSUPPORTED', path, why, { qemu })
}

/** A run that its AbortSignal ended; `signal.reason` becomes the cause. */
export function abortedError(what: string, signal: AbortSignal): BackupError {
  return new BackupError('ABORTED', what, 'interrupted', { cause: signal.reason })
}

/** @throws BackupError ABORTED if the signal is aborted */
export function throwIfAborted(signal: AbortSignal | undefined, what: string): void {
  if (signal?.aborted) throw abortedError(what, signal)
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
  EMFILE: 'too many open files; the limit can be raised (ulimit -n)',
  ENOMEM: 'out of memory',
  ETIMEDOUT: 'timed out',
  ENOTCONN: 'the connection was lost',
  ECONNREFUSED: 'connection refused',
}

/** The message of anything thrown. A caller's code may throw any value; this never throws. */
export function messageOf(thrown: unknown): string {
  try {
    return `${thrown instanceof Error ? thrown.message : thrown}`
  } catch {
    // A symbol, an object without a prototype, a getter that throws.
    return 'what was thrown has no message'
  }
}

/** Anything thrown, as an Error. Never throws. */
export function asError(thrown: unknown): Error {
  try {
    // Its message was read once, so it can be read again.
    if (thrown instanceof Error && typeof thrown.message === 'string') return thrown
  } catch {
    // A proxy, or a getter that throws.
  }
  return new Error(messageOf(thrown), { cause: thrown })
}

/** A failure, with what else is to be said, such as what could not be cleaned up after it. */
export function withNotes(error: unknown, notes: readonly string[]): unknown {
  if (notes.length === 0 || !isBackupError(error)) return error
  const { code, what, why, errno, hint } = error
  // Of a run that was ended the cause is the reason.
  const cause = code === 'ABORTED' ? error.cause : error
  return new BackupError(code, what, [why, ...notes].join('; '), { cause, errno, hint })
}

/** Describes a failed system call, with the file's name. Errors of ours pass unchanged. */
export function ioError(what: string, error: unknown): BackupError {
  if (isBackupError(error)) return error
  const errno = (error as NodeJS.ErrnoException)?.code
  const why = (errno && REASONS[errno]) ?? messageOf(error)
  return new BackupError('IO', what, why, { cause: error, errno })
}
