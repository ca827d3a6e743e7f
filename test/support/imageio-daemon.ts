/**
 * An imageio server as oVirt's is, by what was observed of it, for one ticket: its answers, their status,
 * headers and odd habits. `instead` puts others in their place.
 */
import { createHash } from 'node:crypto'
import {
  createServer,
  type IncomingMessage,
  type RequestListener,
  type ServerResponse,
} from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'

export interface DaemonExtent {
  start: number
  length: number
  zero?: boolean
  hole?: boolean
  dirty?: boolean
}

export interface ImageioDaemonOptions {
  /** The disk's content; written to if `ops` has write. */
  bytes: Buffer
  /** What the ticket allows. Default: the disk's size. */
  ticketSize?: number
  ops?: 'read' | 'write'
  /** Default: all of it data. */
  zero?: readonly DaemonExtent[]
  /** Without it the ticket has no bitmap. */
  dirty?: readonly DaemonExtent[]
  features?: readonly string[]
  /** Answer of OPTIONS instead of what the daemon has; a number is a status without a body. */
  options?: number | object
  maxReaders?: number
  maxWriters?: number
  tls?: { cert: string; key: string }
  /** Listen on this Unix socket; an abstract one has a leading NUL. */
  path?: string
  /** Answers a request in another way, if it returns true. */
  instead?: (request: IncomingMessage, response: ServerResponse, count: number) => boolean
}

export interface ImageioDaemon {
  readonly url: string
  readonly port: number
  /** `GET /extents?context=zero`, `GET bytes=0-0`, … in their order. */
  readonly requests: string[]
  /** Connections that were made. */
  readonly connections: () => number
  /** Open connections over which something was written without a flush since. */
  readonly unflushed: () => number
}

export const TICKET = '3a7c9d10-5b8e-4f2a-9c61-d0e4b7a82f35'

/** Starts one for as long as the test runs. */
export async function startImageioDaemon(
  t: Test,
  options: ImageioDaemonOptions,
): Promise<ImageioDaemon> {
  const daemon = new Daemon(options)
  const listener: RequestListener = (request, response) => void daemon.serve(request, response)
  const server = options.tls ? createTlsServer(options.tls, listener) : createServer(listener)
  server.keepAliveTimeout = 60_000
  let connections = 0
  server.on('connection', (socket) => {
    connections++
    socket.on('close', () => daemon.unflushed.delete(socket))
  })
  await new Promise<void>((resolve) => {
    if (options.path === undefined) server.listen(0, '127.0.0.1', resolve)
    else server.listen({ path: options.path }, resolve)
  })
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port = 0 } = (server.address() ?? {}) as Partial<AddressInfo>
  const socket = options.path?.replace('\0', '%00')
  const url =
    socket === undefined
      ? `http${options.tls ? 's' : ''}://127.0.0.1:${port}/images/${TICKET}`
      : `http+unix:///images/${TICKET}?socket=${socket}`
  return {
    url,
    port,
    requests: daemon.requests,
    connections: () => connections,
    unflushed: () => daemon.unflushed.size,
  }
}

class Daemon {
  readonly requests: string[] = []
  readonly unflushed = new Set<unknown>()
  readonly #options: ImageioDaemonOptions
  readonly #size: number
  #count = 0

  constructor(options: ImageioDaemonOptions) {
    this.#options = options
    this.#size = options.ticketSize ?? options.bytes.length
  }

  async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', headers } = request
    const url = new URL(request.url ?? '', 'http://daemon')
    const rest = url.pathname.replace(`/images/${TICKET}`, '')
    const range = headers.range ?? headers['content-range'] ?? ''
    this.requests.push(`${method} ${rest}${url.search}${range}`)
    response.setHeader('server', 'imageio/2.5.3')
    if (this.#options.instead?.(request, response, ++this.#count)) return
    if (!url.pathname.startsWith(`/images/${TICKET}`))
      return refuse(response, 403, 'No such ticket')
    const { ops = 'read', bytes } = this.#options
    const isWriting = method === 'PUT' || method === 'PATCH'
    if (isWriting && ops === 'read') return refuse(response, 403, 'Ticket forbids write')
    switch (`${method} ${rest}`) {
      case 'OPTIONS ':
        return this.#abilities(response)
      case 'GET ':
        return this.#get(headers.range, response)
      case 'GET /extents':
        return this.#extents(url.searchParams.get('context') ?? 'zero', response)
      case 'GET /checksum':
        return json(response, checksumOf(bytes, Number(url.searchParams.get('block_size'))))
      case 'PUT ':
        return await this.#put(request, response, url.searchParams.get('flush') !== 'n')
      case 'PATCH ':
        return await this.#patch(request, response)
    }
    refuse(response, 405, 'You are not allowed to access this resource')
  }

  #abilities(response: ServerResponse) {
    const { options, ops = 'read', maxReaders = 8, maxWriters = 8 } = this.#options
    if (typeof options === 'number') {
      response.writeHead(options).end()
      return
    }
    const all = ['checksum', 'extents', ...(ops === 'write' ? ['flush', 'zero'] : [])]
    const { features = all } = this.#options
    response.setHeader('allow', `OPTIONS,GET${ops === 'write' ? ',PUT,PATCH' : ''}`)
    json(response, options ?? { features, max_readers: maxReaders, max_writers: maxWriters })
  }

  #get(range: string | undefined, response: ServerResponse) {
    const { bytes } = this.#options
    const size = Math.min(this.#size, bytes.length)
    if (range === undefined) {
      response.writeHead(200, { 'content-length': size })
      response.end(bytes.subarray(0, size))
      return
    }
    const [, first, last] = /^bytes=(\d+)-(\d*)$/.exec(range) ?? []
    if (first === undefined) return refuse(response, 416, 'Unsupported range')
    const start = Number(first)
    const end = last === '' ? size : Number(last) + 1
    if (end <= start) return refuse(response, 416, 'Requested range not satisfiable')
    for (const limit of [this.#size, bytes.length]) {
      if (end <= limit) continue
      response.setHeader('content-range', `bytes */${limit}`)
      return refuse(response, 416, 'Requested range not satisfiable')
    }
    response.writeHead(206, {
      'content-length': end - start,
      'content-range': `bytes ${start}-${end - 1}/${this.#size}`,
      'content-disposition': 'attachment',
    })
    response.end(bytes.subarray(start, end))
  }

  #extents(context: string, response: ServerResponse) {
    const { dirty, bytes } = this.#options
    const all = [{ start: 0, length: bytes.length, zero: false, hole: false }]
    if (context === 'zero') return json(response, this.#options.zero ?? all)
    if (context !== 'dirty') return refuse(response, 400, 'Invalid context')
    if (!dirty) return refuse(response, 404, `Context dirty not available: ${TICKET}`)
    json(response, dirty)
  }

  async #put(request: IncomingMessage, response: ServerResponse, flush: boolean): Promise<void> {
    const { headers, socket } = request
    if (headers['content-length'] === undefined) {
      return refuse(response, 400, 'Content-Length is required')
    }
    const start = Number(/^bytes (\d+)-/.exec(headers['content-range'] ?? '')?.[1] ?? 0)
    const body = await bodyOf(request)
    if (!this.#isInside(start, body.length, response)) return
    body.copy(this.#options.bytes, start)
    if (flush) this.unflushed.delete(socket)
    else this.unflushed.add(socket)
    response.writeHead(200, { 'content-length': 0 }).end()
  }

  async #patch(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { op, size, offset = 0, flush = false } = JSON.parse(String(await bodyOf(request)))
    this.requests.push(`${op} ${offset}+${size}`)
    if (op === 'zero') {
      if (!this.#isInside(offset, size, response)) return
      this.#options.bytes.fill(0, offset, offset + size)
      if (!flush) this.unflushed.add(request.socket)
    } else if (op !== 'flush') {
      return refuse(response, 400, 'Invalid op')
    }
    if (op === 'flush' || flush) this.unflushed.delete(request.socket)
    response.writeHead(200, { 'content-length': 0 }).end()
  }

  #isInside(start: number, length: number, response: ServerResponse): boolean {
    if (start + length <= this.#size) return true
    response.setHeader('content-range', `bytes */${this.#size}`)
    refuse(response, 416, 'Requested range not satisfiable')
    return false
  }
}

/** A refusal as the daemon words it: text, and after a 403 it closes. */
export function refuse(response: ServerResponse, status: number, why: string): void {
  if (status === 403) response.setHeader('connection', 'close')
  const body = `${why}\n`
  response.writeHead(status, {
    'content-type': 'text/plain; charset=UTF-8',
    'content-length': Buffer.byteLength(body),
  })
  response.end(body)
}

/** JSON as the daemon sends it. */
export function json(response: ServerResponse, value: unknown): void {
  const body = `${JSON.stringify(value)}\n`
  response.writeHead(200, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
  })
  response.end(body)
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

function checksumOf(bytes: Buffer, blockSize: number) {
  // Node has no blake2b of 32 bytes: the test that needs the right one brings it.
  const checksum = createHash('sha256').update(bytes).digest('hex')
  return { algorithm: 'blake2b', block_size: blockSize, checksum }
}
