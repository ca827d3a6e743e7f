import { argumentError } from '../errors.ts'

/** Where a server listens. */
export type Address = { host: string; port: number } | { path: string }

/**
 * Reads `HOST:PORT`, `[HOST]:PORT`, `unix:PATH`, or `unix:@NAME` for an abstract socket.
 * @param option for messages
 * @throws BackupError USAGE
 */
export function addressOf(text: string, option: string): Address {
  if (text.startsWith('unix:')) {
    const path = text.slice(5).replace(/^@/, '\0')
    if (path === '' || path === '\0')
      throw argumentError(option, `'${text}' names no socket; write unix:PATH`)
    return { path }
  }
  const [, host, port] = /^(\[[^\]]+\]|[^:]+):(\d{1,5})$/.exec(text) ?? []
  if (host === undefined || Number(port) > 65535) {
    throw argumentError(option, `'${text}' is not an address; write HOST:PORT or unix:PATH`)
  }
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port) }
}

/** An address as it is written. */
export function formatAddress(address: Address): string {
  if ('path' in address) return `unix:${address.path.replace(/^\0/, '@')}`
  const { host, port } = address
  return `${host.includes(':') ? `[${host}]` : host}:${port}`
}
