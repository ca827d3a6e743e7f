import { usageError } from '../errors.ts'

/** Where an export is. */
export interface NbdAddress {
  /** As libnbd takes it. */
  readonly uri: string
  /** As messages show it: without user and without any parameter but the socket. */
  readonly displayUri: string
  /** Equal for equal server and export, however the rest is written. */
  readonly identity: string
  /** Whether the connection is encrypted. */
  readonly tls: boolean
  /** Query parameters, unescaped. */
  readonly parameters: ReadonlyMap<string, string>
}

/** The port that IANA gave NBD. */
const PORT = 10809

const SCHEME = /^nbds?(?:\+unix)?:/

/** RFC 3986, appendix B, with the authority taken apart. */
const PARTS =
  /^(?<scheme>[^:]+):\/\/(?:[^@/?#]*@)?(?<host>\[[^\]/?#]*\]|[^:/?#]*)(?::(?<port>[^/?#]*))?(?<path>\/[^?#]*)?(?:\?(?<query>[^#]*))?(?<fragment>#.*)?$/

/** Whether a location means an NBD export. */
export function isNbdUri(location: string): boolean {
  return SCHEME.test(location)
}

/**
 * Reads an NBD URI (the NBD project's doc/uri.md): `nbd://HOST[:PORT]/EXPORT`,
 * `nbd+unix:///EXPORT?socket=PATH`, and the same with `nbds` for TLS. The TLS parameters are
 * left to libnbd.
 * @throws BackupError USAGE, saying how it is to be written
 */
export function parseNbdUri(uri: string): NbdAddress {
  const parts = PARTS.exec(uri)?.groups
  // The part after it may be a password.
  const what = uri.replace(/[?#].*/s, '').replace(/\/\/[^/]*@/, '//')
  if (!parts || !isNbdUri(uri)) {
    throw usageError(what, 'is not an NBD URI; write nbd://HOST[:PORT]/EXPORT')
  }
  const { scheme, host, port, path = '', query = '', fragment } = parts
  const wrong = /[^!-~]|["<>\\^`{|}]|%(?![0-9a-f]{2})/iu.exec(uri)?.[0]
  if (wrong) throw usageError(what, `'${wrong}' must be written ${escaped(wrong)} in a URI`)
  if (fragment) throw usageError(what, "'#' must be written %23 in a URI")

  const raw = new Map(query.split('&').map(splitParameter))
  const parameters = new Map([...raw].map(([key, value]) => [key, decode(value, what)]))
  const tls = scheme.startsWith('nbds')
  const socket = raw.get('socket')
  const name = decode(path.slice(1), what)
  if (scheme.endsWith('+unix')) {
    const form = `write ${scheme}:///EXPORT?socket=PATH`
    if (host || port) throw usageError(what, `a Unix socket has no host; ${form}`)
    if (!socket) throw usageError(what, `the socket is missing; ${form}`)
    const identity = `nbd:${parameters.get('socket')}/${name}`
    const displayUri = `${scheme}://${path || '/'}?socket=${socket}`
    return { uri, displayUri, identity, tls, parameters }
  }
  const form = `write ${scheme}://HOST[:PORT]/EXPORT`
  if (socket !== undefined) {
    throw usageError(what, `a socket needs ${scheme}+unix:///EXPORT?socket=PATH`)
  }
  if (!host) throw usageError(what, `the host is missing; ${form}`)
  if (port !== undefined && !(/^\d{1,5}$/.test(port) && Number(port) > 0 && Number(port) < 65536)) {
    throw usageError(what, `'${port}' is not a valid port; ${form}`)
  }
  const identity = `nbd:${host.toLowerCase()}:${Number(port ?? PORT)}/${name}`
  return { uri, displayUri: what, identity, tls, parameters }
}

function splitParameter(text: string): [string, string] {
  const [key, ...value] = text.split('=')
  return [key, value.join('=')]
}

function escaped(character: string): string {
  // Through a Buffer, since half a surrogate pair cannot be encoded.
  return encodeURIComponent(Buffer.from(character).toString())
}

function decode(text: string, what: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw usageError(what, 'its percent-escapes are not valid UTF-8')
  }
}
