import { BackupError, ioError } from '../errors.ts'
import type { Disk } from '../source/source.ts'

/** What the addon's errors carry, see native/copy/error.h and native/napi/errors.cc. */
interface NativeFailure extends Error {
  /** The errno's name. */
  code?: string
  /** What was being done. */
  context?: string
  /** native/copy/error.h: do not change one without the other. */
  failure?: 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7
  /** Index of the source's file. */
  file?: number
  /** In that file, bytes. */
  offset?: number
}

/**
 * Puts a failure of a running copy into words that name the file and the offset.
 * @param cause what the calling program's own read failed with
 */
export function copyError(
  error: unknown,
  source: Pick<Disk, 'name' | 'files'>,
  target: string,
  cause?: Error,
): BackupError {
  if (error instanceof BackupError) return error
  const failure = error as NativeFailure
  const path = source.files[failure.file ?? 0]?.path ?? source.name
  const options = { cause: error, errno: failure.code }
  const reason = () => {
    const { why } = ioError('', error)
    const context = `${failure.context}: `
    return why.startsWith(context) ? why.slice(context.length) : why
  }
  switch (failure.failure) {
    case 1: {
      const why = `${at('read', failure.offset)}: ${cause?.message ?? reason()}`
      return new BackupError('IO', path, why, { ...options, cause: cause ?? error })
    }
    case 2:
      return new BackupError(
        'SOURCE_CHANGED',
        path,
        `ends at or before offset ${failure.offset}: it shrank while it was read`,
        options,
      )
    case 3:
      return new BackupError(
        'BAD_IMAGE',
        path,
        `the compressed cluster at offset ${failure.offset} is damaged`,
        options,
      )
    case 6:
    case 7: {
      // libnbd's words name its function first, and the reason already.
      const words = failure.context?.replace(/^nbd_\w+: /, '')
      const why = words === failure.context ? `${words}: ${reason()}` : words
      const what = failure.failure === 6 ? path : target
      return new BackupError('IO', what, `the NBD server is lost: ${why}`, options)
    }
    case 5:
      return new BackupError('ABORTED', target, 'interrupted', options)
    default:
      // Not from a copy: out of memory, or a fault of ours.
      if (failure.context === undefined) return ioError(target, error)
      return new BackupError('IO', target, `${failure.context}: ${reason()}`, options)
  }
}

function at(what: string, offset: number | undefined): string {
  return `${what} at ${offset}`
}
