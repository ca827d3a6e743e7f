import { usageError } from '../errors.ts'

/** Capacity of `sun_path` without its closing zero, unix(7). Node cuts a longer path, without a word. */
export const MAX_SOCKET_PATH = 107

/** Where a monitor listens. */
export type QmpAddress = { path: string } | { host: string; port: number }

/** A host, the last colon, and digits to the end; an IPv6 address is in brackets. */
const HOST_AND_PORT = /^(?:\[(?<v6>[^\]/]+)\]|(?<host>[^:/[\]]+)):(?<port>\d{1,5})$/

/**
 * Reads `PATH` of a Unix socket, or `HOST:PORT`. Text with a slash is a path.
 * @throws BackupError USAGE if the path or the port cannot be one
 */
export function parseQmpAddress(text: string): QmpAddress {
  const { v6, host = v6, port } = HOST_AND_PORT.exec(text)?.groups ?? {}
  if (host === undefined) {
    if (text === '') throw usageError('monitor', 'write a socket path, or HOST:PORT')
    requireSocketPath(text)
    return { path: text }
  }
  if (Number(port) < 1 || Number(port) > 65535) {
    throw usageError(text, `'${port}' is not a valid port`)
  }
  return { host, port: Number(port) }
}

/** @throws BackupError USAGE if a Unix socket cannot have this path */
export function requireSocketPath(path: string): void {
  if (path.includes('\0')) throw usageError(path, 'a socket path has no NUL byte')
  const bytes = Buffer.byteLength(path)
  if (bytes <= MAX_SOCKET_PATH) return
  const why = `has ${bytes} bytes; the path of a Unix socket has at most ${MAX_SOCKET_PATH}`
  throw usageError(path, why)
}
