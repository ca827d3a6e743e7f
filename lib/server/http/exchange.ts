import type { IncomingMessage, ServerResponse } from 'node:http'
import { BackupError } from '../../errors.ts'
import { badRequest, HttpError } from '../ticket/http-error.ts'

/** A request with its answer. */
export interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  /** Percent-decoded. */
  readonly path: string
  readonly query: URLSearchParams
}

/** Of a request line, with method and version. */
const MAX_LINE = 4096
/** Of JSON that a client sends. */
const MAX_JSON = 65_536

/**
 * Takes a request apart.
 * @throws HttpError 414, 400
 */
export function exchangeOf(request: IncomingMessage, response: ServerResponse): Exchange {
  const { method = '', url = '', httpVersion } = request
  if (`${method} ${url} HTTP/${httpVersion}`.length > MAX_LINE) {
    throw new HttpError(414, `The request line is longer than ${MAX_LINE} bytes`)
  }
  // A proxy may name the host there, too.
  const [path, query = ''] = url.replace(/^https?:\/\/[^/?]*/i, '').split(/\?(.*)/s)
  try {
    return { request, response, path: decodeURIComponent(path), query: new URLSearchParams(query) }
  } catch {
    throw badRequest('The path is not percent-encoded UTF-8')
  }
}

/** The value of a parameter, of several the last one. */
export function parameter({ query }: Exchange, name: string): string | undefined {
  return query.getAll(name).at(-1)
}

/** @throws HttpError 400 */
export function flag(exchange: Exchange, name: string, fallback: boolean): boolean {
  const value = parameter(exchange, name)
  if (value === undefined) return fallback
  if (value === 'y' || value === 'n') return value === 'y'
  throw badRequest(`${name} is neither y nor n`)
}

/** @throws HttpError 400 */
export function number(exchange: Exchange, name: string): number | undefined {
  const value = parameter(exchange, name)
  if (value === undefined) return undefined
  const n = /^\d{1,16}$/.test(value) ? Number(value) : Number.NaN
  if (Number.isSafeInteger(n)) return n
  throw badRequest(`${name} is not a whole number`)
}

/** Whether the client sends a body. */
export function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

/** Answers with text or JSON, or with nothing at all. */
export function reply(
  { request, response }: Pick<Exchange, 'request' | 'response'>,
  status: number,
  headers: Readonly<Record<string, string>> = {},
  body: string | object = '',
): void {
  const text = typeof body === 'string' ? body : `${JSON.stringify(body)}\n`
  const bytes = Buffer.from(text)
  const type = typeof body === 'string' ? 'text/plain; charset=UTF-8' : 'application/json'
  response.writeHead(status, {
    ...(status !== 204 && { 'content-length': `${bytes.length}` }),
    ...(bytes.length > 0 && { 'content-type': type }),
    ...headers,
  })
  response.end(request.method === 'HEAD' ? undefined : bytes)
}

/**
 * Tells a client why it gets nothing else. What a failure of ours is about, its own log tells.
 */
export function replyError(exchange: Pick<Exchange, 'request' | 'response'>, error: unknown): void {
  const { request, response } = exchange
  if (response.destroyed) return
  // The client can only see that the body is too short.
  if (response.headersSent) {
    response.destroy()
    return
  }
  const { status, message, headers } = told(error)
  // What is unread would be taken for the next request.
  const isUnread = hasBody(request) && !request.complete
  reply(exchange, status, { ...headers, ...(isUnread && { connection: 'close' }) }, `${message}\n`)
}

function told(error: unknown): HttpError {
  if (error instanceof HttpError) return error
  if (error instanceof BackupError && error.code === 'USAGE') return badRequest(error.message)
  return new HttpError(500, 'The server failed; its log says why')
}

/**
 * The JSON object of a body.
 * @throws HttpError 400
 */
export async function jsonBody({ request }: Exchange): Promise<Record<string, unknown>> {
  const length = requireLength(request)
  if (length > MAX_JSON) throw badRequest(`The body is longer than ${MAX_JSON} bytes`)
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  let value: unknown
  try {
    value = JSON.parse(Buffer.concat(chunks).toString())
  } catch {
    throw badRequest('The body is not JSON')
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>
  }
  throw badRequest('The body is not a JSON object')
}

/** @throws HttpError 400: a body of unknown length is not supported */
export function requireLength({ headers }: IncomingMessage): number {
  const length = headers['content-length']
  if (length === undefined || headers['transfer-encoding'] !== undefined) {
    throw badRequest('The Content-Length is missing')
  }
  const bytes = Number(length)
  if (Number.isSafeInteger(bytes)) return bytes
  throw badRequest('The Content-Length is too large')
}
