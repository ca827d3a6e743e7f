import type { IncomingHttpHeaders } from 'node:http'
import { BackupError, ioError } from '../../errors.ts'
import { oneLine } from '../../text.ts'
import { BadList } from './extent-parser.ts'
import { WrongCertificate } from './trust.ts'

/** Characters of a server's explanation that are kept. */
const MAX_TEXT = 200

/** The head of an answer. */
export interface Head {
  readonly status: number
  readonly headers: IncomingHttpHeaders
}

/** The server has answered, and not with what was asked for. */
export class Refusal extends Error {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  /** The server's own words, on one line. */
  readonly text: string

  constructor({ status, headers }: Head, body: string) {
    super(`HTTP status ${status}`)
    this.status = status
    this.headers = headers
    this.text = oneLine(body.trim().split('\n')[0].slice(0, MAX_TEXT))
  }
}

/** An answer that is not what the protocol has. */
export class Broken extends Error {}

/** Codes of errors after which the connection is lost; a server that is silent is not asked again. */
const LOST = ['UND_ERR_SOCKET', 'ECONNRESET', 'ECONNREFUSED', 'EPIPE']

/** Whether asking again may help: the connection was lost, or the server failed. */
export function isPassing(error: unknown): boolean {
  if (error instanceof Refusal) return error.status >= 500
  return LOST.includes(innermost(error).code ?? '')
}

/**
 * What happened, in words.
 * @param path of the image, whose ticket the server may repeat
 * @param timeoutMs how long the server was waited for
 */
export function whyOf(error: unknown, path: string, timeoutMs: number): string {
  if (error instanceof Refusal) return refusalOf(error, path)
  if (error instanceof BackupError) return error.why
  const { name, code = '', message } = innermost(error)
  const seconds = timeoutMs / 1000
  if (error instanceof Broken || error instanceof BadList || error instanceof WrongCertificate) {
    return message
  }
  if (code === 'UND_ERR_CONNECT_TIMEOUT') return `no connection within ${seconds} s`
  if (code === 'UND_ERR_HEADERS_TIMEOUT') return `no answer within ${seconds} s`
  if (code === 'UND_ERR_BODY_TIMEOUT') return `the answer stopped, for ${seconds} s`
  if (LOST.includes(code) && code !== 'ECONNREFUSED') {
    return 'the server closed the connection'
  }
  if (name === 'HTTPParserError' || code === 'UND_ERR_HEADERS_OVERFLOW') {
    return 'what the server sends is not HTTP as it should be'
  }
  if (code === 'EPROTO' || code.startsWith('ERR_SSL_')) return 'the server does not speak TLS'
  if (code.startsWith('ERR_TLS_') || /CERT|SIGNATURE|ISSUER|CRL/.test(code)) {
    return `the server's certificate is not trusted: ${oneLine(message)}`
  }
  return ioError('', Object.assign(new Error(oneLine(message)), code && { code })).why
}

/**
 * An error of an image, with what was being done.
 * @param what the image as messages show it
 */
export function imageError(
  what: { displayUrl: string; path: string },
  doing: string,
  error: unknown,
  timeoutMs: number,
): BackupError {
  if (error instanceof BackupError) return error
  const { code = '' } = innermost(error)
  const silent = /^UND_ERR_(CONNECT|HEADERS|BODY)_TIMEOUT$/.test(code)
  const errno = silent ? 'ETIMEDOUT' : /^E[A-Z]+$/.test(code) ? code : undefined
  return new BackupError('IO', what.displayUrl, `${doing}: ${whyOf(error, what.path, timeoutMs)}`, {
    cause: error,
    errno,
    ...(silent && { hint: 'timeoutMs' as const }),
  })
}

/** Of an attempt at several addresses, the first failure. */
function innermost(error: unknown): NodeJS.ErrnoException {
  return error instanceof AggregateError && error.errors.length > 0
    ? (error.errors[0] as Error)
    : (error as Error)
}

function refusalOf({ status, headers, text }: Refusal, path: string): string {
  const ticket = decodeURIComponent(path.slice(path.lastIndexOf('/') + 1))
  const said = text.replaceAll(ticket, '…')
  const words = wordsOf(status, headers)
  return said === '' ? words : `${words}; the server says: ${said}`
}

function wordsOf(status: number, headers: IncomingHttpHeaders): string {
  switch (status) {
    case 401:
    case 403:
      return (
        `the server does not accept the ticket (${status}): it is unknown, expired, cancelled, or ` +
        'not for this; start a new transfer'
      )
    case 404:
      return 'the server has no such thing (404)'
    case 405:
      return 'the server or the ticket does not allow this (405)'
    case 416: {
      const size = /^bytes \*\/(\d+)$/.exec(headers['content-range'] ?? '')?.[1]
      const has = size === undefined ? '' : `: the image that it hands out has ${size} bytes`
      return `the range is outside of the image (416)${has}`
    }
    case 429:
    case 503:
      return `the server is too busy (${status})`
  }
  if (status >= 300 && status < 400)
    return `the server redirects (${status}), which is not followed`
  if (status >= 500) return `the server failed (${status})`
  return `the server refuses (${status})`
}
