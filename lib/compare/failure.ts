import { getSystemErrorName } from 'node:util'
import type { GuestStore } from '../block-status/status.ts'
import { abortedError, BackupError, ioError, isBackupError } from '../errors.ts'
import { lostServer, type NativeFailure } from '../source/native-failure.ts'
import type { Unreadable } from './found.ts'

/** The error of a comparison that could not continue. */
export function compareError(
  error: unknown,
  names: readonly [string, string],
  stores: readonly GuestStore[],
  signal?: AbortSignal,
): unknown {
  if (signal?.aborted) return abortedError(names[0], signal)
  const native = error as NativeFailure
  const { failure, code, context, file } = native
  // An error of the plan, or of a callback.
  if (isBackupError(error) || code === undefined) return error
  const path = stores[file ?? 0]?.path ?? names[0]
  if (failure === 6)
    return new BackupError('IO', path, lostServer(native), { cause: error, errno: code })
  const { why } = ioError(path, error)
  return new BackupError('IO', path, context ? `${context}: ${why}` : why, {
    cause: error,
    errno: code,
  })
}

/** The name of the errno that guest bytes could not be read with, if there is one. */
export function errnoOf({ reason, errnum }: Unreadable): string | undefined {
  if (reason === 'shrank') return undefined
  // As QEMU has it of a damaged cluster.
  return reason === 'damaged' ? 'EIO' : getSystemErrorName(-errnum)
}

/** Why guest bytes could not be read. */
export function whyUnreadable(found: Unreadable): string {
  switch (found.reason) {
    case 'read': {
      const code = errnoOf(found)
      return ioError('', Object.assign(new Error(code), { code })).why
    }
    case 'shrank':
      return 'the file is shorter than when it was opened'
    case 'damaged':
      return 'the compressed cluster is damaged'
  }
}
