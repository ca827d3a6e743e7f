import { ioError } from '../errors.ts'
import { wasClosed } from '../nbd/lost.ts'

/** Properties of the addon's errors, see native/copy/error.h and native/napi/errors.cc. */
export interface NativeFailure extends Error {
  /** The errno's name. */
  code?: string
  /** The failed operation. */
  context?: string
  /** native/copy/error.h: do not change one without the other. */
  failure?: 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7
  /** Index of the source's file. */
  file?: number
  /** In that file, bytes. */
  offset?: number
}

/** Why the system refused, without the operation. */
export function reasonOf(failure: NativeFailure): string {
  const { why } = ioError('', failure)
  const context = `${failure.context}: `
  return why.startsWith(context) ? why.slice(context.length) : why
}

/** Why a server cannot be reached any more. */
export function lostServer(failure: NativeFailure): string {
  // libnbd's words name its function first, and the reason already.
  const words = failure.context?.replace(/^nbd_\w+: /, '')
  if (failure.code === 'ESTALE') return `the NBD server came back, but ${words}`
  if (failure.code === 'EPROTO') return `the NBD server breaks the protocol: ${words}`
  if (failure.code === 'ETIMEDOUT') {
    return `the NBD server is lost: ${words?.startsWith('it ') ? words : 'it does not answer in time'}`
  }
  if (wasClosed(failure.code, words ?? ''))
    return 'the NBD server is lost: it closed the connection'
  const why = words === failure.context ? `${words}: ${reasonOf(failure)}` : words
  return `the NBD server is lost: ${why}`
}
