import { BackupError, ioError } from '../errors.ts'
import { lostServer, type NativeFailure, reasonOf } from '../source/native-failure.ts'
import type { Disk } from '../source/source.ts'

/** Errors of a custom source's reads and a custom target's writes. */
export interface Causes {
  read?: Error
  write?: Error
}

/** Describes a failure of a running copy, with the file and the offset. */
export function copyError(
  error: unknown,
  source: Pick<Disk, 'name' | 'stores'>,
  target: string,
  causes: Causes = {},
): BackupError {
  if (error instanceof BackupError) return error
  const failure = error as NativeFailure
  const path = source.stores[failure.file ?? 0]?.path ?? source.name
  const options = { cause: error, errno: failure.code }
  switch (failure.failure) {
    case 1: {
      const cause = causes.read
      const why = `${at('read', failure.offset)}: ${cause?.message ?? reasonOf(failure)}`
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
    case 4: {
      const cause = causes.write
      const why = `${failure.context}: ${cause?.message ?? reasonOf(failure)}`
      return new BackupError('IO', target, why, { ...options, cause: cause ?? error })
    }
    case 6:
    case 7: {
      const what = failure.failure === 6 ? path : target
      return new BackupError('IO', what, lostServer(failure), options)
    }
    case 5:
      return new BackupError('ABORTED', target, 'interrupted', options)
    default:
      // Not from a copy: out of memory, or a fault of ours.
      if (failure.context === undefined) return ioError(target, error)
      return new BackupError('IO', target, `${failure.context}: ${reasonOf(failure)}`, options)
  }
}

function at(what: string, offset: number | undefined): string {
  return `${what} at ${offset}`
}
