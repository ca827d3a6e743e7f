import { usageError } from '../../errors.ts'

/** Where an image is, that an imageio server hands out for a ticket. */
export interface ImageAddress {
  /** Scheme, host and port, as HTTP needs them. */
  readonly origin: string
  /** Path of the image: `/images/TICKET`. */
  readonly path: string
  /** A Unix socket that is connected to instead; one with a leading NUL is an abstract one. */
  readonly socket?: string
  /** Whether the connection is encrypted. */
  readonly tls: boolean
  /** As messages show it: with the beginning of the ticket at most, which is a secret. */
  readonly displayUrl: string
}

const SCHEME = /^https?(?:\+unix)?:\/\//

const PARTS =
  /^(?<scheme>https?(?:\+unix)?):\/\/(?<user>[^@/?#]*@)?(?<host>\[[^\]/?#]*\]|[^:/?#]*)(?::(?<port>[^/?#]*))?(?<path>\/[^?#]*)?(?:\?(?<query>[^#]*))?(?<fragment>#.*)?$/s

/** Tickets of fewer characters are not shown at all; of others, these. oVirt's have 36. */
const LEAST_SHOWN = 24
const SHOWN = 8

/** Whether a location means an image of an imageio server. */
export function isImageUrl(location: string): boolean {
  return SCHEME.test(location)
}

/** A location as messages may show it: the URL of an image without its ticket, anything else as it is. */
export function shownLocation(location: string): string {
  if (!isImageUrl(location)) return location
  const { scheme = '', host = '', port, path = '', query } = PARTS.exec(location)?.groups ?? {}
  if (!scheme) return `${location.slice(0, location.indexOf(':'))}://…`
  const ticket = /^\/images\/([^/]+)$/.exec(path)?.[1]
  const image = ticket === undefined ? (path === '' ? '' : '/…') : `/images/${shownTicket(ticket)}`
  const socket = /^socket=[^&]*$/.test(query ?? '') ? `?${query}` : ''
  return `${scheme}://${host}${port === undefined ? '' : `:${port}`}${image}${socket}`
}

function shownTicket(ticket: string): string {
  return `${ticket.length < LEAST_SHOWN ? '' : ticket.slice(0, SHOWN)}…`
}

/**
 * Reads the URL of an image: `http(s)://HOST[:PORT]/images/TICKET`, or
 * `http+unix:///images/TICKET?socket=PATH`. A socket that begins with `@` or `%00` is an abstract one.
 * @throws BackupError USAGE, saying how it is to be written, without the ticket
 */
export function parseImageUrl(url: string): ImageAddress {
  const what = shownLocation(url)
  const parts = PARTS.exec(url)?.groups
  if (!parts) throw usageError(what, 'is not a URL; write https://HOST[:PORT]/images/TICKET')
  const { scheme, user, host, port, path = '', query, fragment } = parts
  const unix = scheme.endsWith('+unix')
  const form = unix
    ? 'write http+unix:///images/TICKET?socket=PATH'
    : `write ${scheme}://HOST[:PORT]/images/TICKET`
  const wrong = /[^!-~]|["<>\\^`{|}]|%(?![0-9a-f]{2})/iu.exec(url)?.[0]
  if (wrong) throw usageError(what, `a character in it must be percent-escaped; ${form}`)
  if (user !== undefined) throw usageError(what, `it has no user; ${form}`)
  if (fragment !== undefined) throw usageError(what, `it has no '#'; ${form}`)
  if (!/^\/images\/[^/]+$/.test(path)) {
    throw usageError(what, `is not the URL of an image of an imageio server; ${form}`)
  }
  const ticket = decode(path.slice('/images/'.length), what)
  if (ticket === '.' || ticket === '..' || ticket === '*') {
    throw usageError(what, `the ticket is missing; ${form}`)
  }
  if (unix) {
    if (scheme === 'https+unix')
      throw usageError(what, `there is no TLS over a Unix socket; ${form}`)
    if (host || port !== undefined) throw usageError(what, `a Unix socket has no host; ${form}`)
    const socket = /^socket=([^&]+)$/.exec(query ?? '')?.[1]
    if (socket === undefined) throw usageError(what, `the socket is missing; ${form}`)
    return {
      ...{ origin: 'http://localhost', path, tls: false, displayUrl: what },
      socket: socketName(decode(socket, what), what),
    }
  }
  if (query !== undefined) throw usageError(what, `it takes no parameters; ${form}`)
  if (!host) throw usageError(what, `the host is missing; ${form}`)
  if (port !== undefined && !(/^\d{1,5}$/.test(port) && Number(port) > 0 && Number(port) < 65536)) {
    throw usageError(what, `the port is not valid; ${form}`)
  }
  const origin = `${scheme}://${host}${port === undefined ? '' : `:${port}`}`
  if (!URL.canParse(origin)) throw usageError(what, `the host is not valid; ${form}`)
  return { origin, path, tls: scheme === 'https', displayUrl: what }
}

/** As the system takes it: the name of an abstract socket begins with a NUL. */
function socketName(name: string, what: string): string {
  const socket = name.startsWith('@') ? `\0${name.slice(1)}` : name
  const isAbstract = socket.startsWith('\0')
  // The system would take a name with a NUL inside only up to there.
  if (socket.length < 2 || (!isAbstract && socket.includes('\0'))) {
    throw usageError(what, 'the name of the socket is not valid')
  }
  return socket
}

function decode(text: string, what: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw usageError(what, 'its percent-escapes are not valid UTF-8')
  }
}
