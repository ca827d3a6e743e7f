import { BackupError } from '../errors.ts'

/** Of a command that was under way, or could not be sent, when the connection ended. */
export function interrupted(command: string, failure: BackupError): BackupError {
  const { code, what, why, errno, cause } = failure
  if (code === 'ABORTED') return new BackupError('ABORTED', command, 'interrupted', { cause })
  return new BackupError('IO', command, `${what}: ${why}`, { errno, cause })
}

export function aborted(what: string, signal?: AbortSignal): BackupError {
  return new BackupError('ABORTED', what, 'interrupted', { cause: signal?.reason })
}

export function requireNotAborted(what: string, signal?: AbortSignal): void {
  if (signal?.aborted) throw aborted(what, signal)
}
