import { usageError } from '../errors.ts'

/** Where a monitor listens. */
export type QmpAddress = { path: string } | { host: string; port: number }

/** A host, the last colon, and digits to the end; an IPv6 address is in brackets. */
const HOST_AND_PORT = /^(?:\[(?<v6>[^\]/]+)\]|(?<host>[^:/[\]]+)):(?<port>\d{1,5})$/

/**
 * Reads `PATH` of a Unix socket, or `HOST:PORT`. Text with a slash is a path.
 * @throws BackupError USAGE if the port cannot be one
 */
export function parseQmpAddress(text: string): QmpAddress {
  const { v6, host = v6, port } = HOST_AND_PORT.exec(text)?.groups ?? {}
  if (host === undefined) {
    if (text === '') throw usageError('monitor', 'write a socket path, or HOST:PORT')
    return { path: text }
  }
  if (Number(port) < 1 || Number(port) > 65535) {
    throw usageError(text, `'${port}' is not a valid port`)
  }
  return { host, port: Number(port) }
}
