import type { IncomingMessage, ServerResponse } from 'node:http'
import { badRequest, forbidden, HttpError } from '../ticket/http-error.ts'
import type { Ticket } from '../ticket/ticket.ts'
import { shortId } from '../ticket/ticket.ts'
import { getAlgorithms, getChecksum } from './checksum.ts'
import type { ImagesContext } from './context.ts'
import { type Exchange, parameter } from './exchange.ts'
import { getExtents } from './extents.ts'
import { getImage } from './get.ts'
import { getOptions } from './options.ts'
import { patchImage } from './patch.ts'
import { putImage } from './put.ts'

type Answer = (exchange: Exchange, ticket: Ticket, context: ImagesContext) => Promise<void>

const IMAGE: Record<string, Answer> = {
  OPTIONS: getOptions,
  HEAD: getImage,
  GET: getImage,
  PUT: putImage,
  PATCH: patchImage,
}

const RESOURCES: readonly { path: RegExp; methods: Record<string, Answer> }[] = [
  { path: /^\/images\/([^/]*)$/s, methods: IMAGE },
  { path: /^\/images\/([^/]*)\/extents$/s, methods: { GET: getExtents } },
  { path: /^\/images\/([^/]*)\/checksum$/s, methods: { GET: getChecksum } },
]

const ALGORITHMS = /^\/images\/[^/]*\/checksum\/algorithms$/s

/**
 * Answers a request for an image.
 * @throws HttpError, BackupError; Gone
 */
export async function answerImages(exchange: Exchange, context: ImagesContext): Promise<void> {
  const { request, response, path } = exchange
  const { method = '' } = request
  allowOrigins(request, response)
  if (parameter(exchange, 'close') === 'y') response.setHeader('connection', 'close')
  if (ALGORITHMS.test(path)) {
    if (method !== 'GET') throw notAllowed(['GET'])
    return getAlgorithms(exchange)
  }
  for (const { path: pattern, methods } of RESOURCES) {
    const id = pattern.exec(path)?.[1]
    if (id === undefined) continue
    const answer = methods[method]
    if (!answer) throw notAllowed(Object.keys(methods))
    if (id === '') throw badRequest('The ticket id is missing')
    if (id === '*' && answer === getOptions) return await getOptions(exchange, undefined, context)
    const ticket = context.tickets.find(id)
    if (!ticket) throw forbidden('There is no such ticket')
    return await answer(exchange, ticket, context)
  }
  throw new HttpError(404, 'There is nothing of this path')
}

/** The path of a request as a log may have it. */
export function shownPath(path: string): string {
  return path.replace(/^\/(images|tickets)\/([^/]*)/s, (_, kind, id) => {
    return `/${kind}/${id === '' || id === '*' ? id : shortId(id)}`
  })
}

function notAllowed(methods: readonly string[]): HttpError {
  return new HttpError(405, 'The method is not allowed for this resource', {
    allow: methods.join(','),
  })
}

/** A page of another origin may be the client: oVirt's uploads images from the browser. */
function allowOrigins({ method, headers }: IncomingMessage, response: ServerResponse): void {
  if (method !== 'OPTIONS' && method !== 'GET' && method !== 'PUT') return
  const given: [string, string | string[] | undefined][] = [
    ['origin', headers.origin && '*'],
    ['methods', headers['access-control-request-method'] && 'OPTIONS,HEAD,GET,PUT,PATCH'],
    ['headers', headers['access-control-request-headers']],
  ]
  for (const [name, value] of given) {
    if (value) response.setHeader(`access-control-allow-${name}`, value)
  }
  if (headers.origin) response.setHeader('access-control-max-age', '86400')
}
