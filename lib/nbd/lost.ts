/** Errors of a call whose connection is lost; after any other error the server has answered. */
export const LOST = ['ENOTCONN', 'ECONNRESET', 'EPIPE', 'ESHUTDOWN']

/** libnbd's words for the end of a connection, for which it has no errno. */
const DISCONNECTED = 'server disconnected unexpectedly'

/**
 * Whether a failure means that the other side has closed the connection.
 * @param code the errno's name
 * @param words libnbd's, or the addon's
 */
export function wasClosed(code: string | undefined, words: string): boolean {
  return words.includes(DISCONNECTED) || LOST.includes(code ?? '')
}
