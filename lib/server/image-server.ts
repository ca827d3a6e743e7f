import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http'
import type { Server as HttpsServer } from 'node:https'
import { createRequire } from 'node:module'
import type { Duplex } from 'node:stream'
import { BackupError } from '../errors.ts'
import { log } from '../log.ts'
import { answerControl } from './http/control.ts'
import { type Exchange, exchangeOf, replyError } from './http/exchange.ts'
import { answerImages, shownPath } from './http/images.ts'
import { Gone } from './http/stream.ts'
import { DEFAULT_INACTIVITY_TIMEOUT } from './ticket/request.ts'
import { idleTime } from './ticket/ticket.ts'
import { type ImageTickets, Tickets } from './ticket/tickets.ts'

/** What an image server serves, and how. */
export interface ImageServerOptions {
  /** The repository that urls of the form `repo:MACHINE@POINT/DISK` are about. */
  repository?: string
  /** Directories below which files named inside images may be opened, besides their own. */
  allowPaths?: readonly string[]
  /** Path of a Unix socket, or `\0` and a name, on which clients of this host find the same images. */
  unixSocket?: string
  /** Connections that one server takes at once, see `configure`. Default 512. */
  maxConnections?: number
}

/** Serves images to clients of ovirt-imageio. */
export interface ImageServer {
  /**
   * Answers requests for `/images/…`, and 404 to all others: to be mounted in an HTTP or HTTPS server. Paths are
   * those of the request: a prefix is to be removed from `request.url` before.
   */
  readonly handler: RequestListener
  /** Answers requests for `/tickets/…`, of whoever can reach it: to be mounted where only the owner can. */
  readonly control: RequestListener
  readonly tickets: ImageTickets
  /**
   * Gives a server the limits that the program's own have: connections, time for a request's header, none for
   * its body, which each ticket limits, and answers to what is no HTTP. Without it Node cuts off what takes more
   * than five minutes.
   */
  configure(server: Server | HttpsServer): void
  /** Ends all tickets; new images that have no name yet are discarded. The servers are the caller's to close. */
  close(): Promise<void>
}

const DEFAULT_CONNECTIONS = 512
const HEADERS_MS = 60_000

/** @throws BackupError */
export function createImageServer(options: ImageServerOptions): ImageServer {
  const { repository, allowPaths, unixSocket, maxConnections = DEFAULT_CONNECTIONS } = options
  const tickets = new Tickets({ repository, allowPaths })
  const images = { tickets, unixSocket: unixSocket?.replace(/^\0/, '\\0') }
  return {
    handler: listener((exchange) => answerImages(exchange, images)),
    control: listener((exchange) => answerControl(exchange, tickets)),
    tickets,
    configure: (server) => configure(server, maxConnections),
    close: () => tickets.clear(),
  }
}

/** The request of a connection that is answered now. */
const busy = new WeakMap<Duplex, Promise<void>>()

/** One request of a connection after the other: a client that sends many at once gets no more memory by it. */
function listener(answer: (exchange: Exchange) => Promise<void>): RequestListener {
  return (request, response) => {
    const { socket } = request
    const before = busy.get(socket) ?? Promise.resolve()
    busy.set(
      socket,
      before.then(() => (socket.destroyed ? undefined : serve(request, response, answer))),
    )
  }
}

/** Answers a request. Never fails. */
async function serve(
  request: IncomingMessage,
  response: ServerResponse,
  answer: (exchange: Exchange) => Promise<void>,
): Promise<void> {
  const { socket } = request
  const started = performance.now()
  // While the answer is made nothing may come for long.
  socket.setTimeout(0)
  response.on('error', () => {})
  request.on('error', () => {})
  response.setHeader('server', serverName())
  try {
    await answer(exchangeOf(request, response))
  } catch (error) {
    logFailure(request, error)
    // Node may be about to say why what came was no request.
    if (error instanceof Gone) socket.destroySoon()
    else replyError({ request, response }, error)
  }
  await over(response)
  // Until the next request; a vendor's server may have a limit of its own.
  socket.setTimeout(idleTime(socket))
  log('serve', () => {
    const ms = Math.round(performance.now() - started)
    return `${describe(request)}: ${response.statusCode}, ${ms} ms`
  })
}

/** Resolves when an answer was handed to the system, or its client is gone. */
function over(response: ServerResponse): Promise<void> {
  if (response.writableFinished || response.destroyed) return Promise.resolve()
  return new Promise((resolve) => {
    response.once('finish', resolve).once('close', resolve)
  })
}

function logFailure(request: IncomingMessage, error: unknown): void {
  log('serve', () => {
    const why = error instanceof Error ? error.message : String(error)
    const stack =
      error instanceof BackupError || !(error instanceof Error) ? '' : ` (${error.name})`
    return `${describe(request)}: ${why}${stack}`
  })
}

function describe({ method, url = '' }: IncomingMessage): string {
  return `${method} ${shownPath(url.split('?')[0])}`
}

let name: string | undefined

function serverName(): string {
  name ??= `qcow2-backup/${createRequire(import.meta.url)('qcow2-backup/package.json').version}`
  return name
}

function configure(server: Server | HttpsServer, maxConnections: number): void {
  server.maxConnections = maxConnections
  server.headersTimeout = HEADERS_MS
  server.requestTimeout = 0
  server.keepAliveTimeout = 0
  // A client that has nothing more to say still wants its answers. Node's types do not tell of it.
  Object.assign(server, { httpAllowHalfOpen: true })
  server.on('connection', (socket) => socket.setTimeout(DEFAULT_INACTIVITY_TIMEOUT * 1000))
  server.on('clientError', refuse)
}

/** Answers what Node does not take for a request. */
function refuse(error: NodeJS.ErrnoException & { rawPacket?: Buffer }, socket: Duplex): void {
  if (!socket.writable || error.code === 'ECONNRESET') {
    socket.destroy()
    return
  }
  const [status, why] = reasonOf(error)
  const text = `${why}\n`
  socket.end(
    `HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-type: text/plain; charset=UTF-8\r\n` +
      `content-length: ${text.length}\r\n\r\n${text}`,
  )
}

function reasonOf({ code, rawPacket }: { code?: string; rawPacket?: Buffer }): [string, string] {
  if (code === 'HPE_INVALID_METHOD') return ['405 Method Not Allowed', 'The method is unknown']
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT')
    return ['408 Request Timeout', 'The request took too long']
  if (code !== 'HPE_HEADER_OVERFLOW') return ['400 Bad Request', 'The request is malformed']
  const isLine = rawPacket === undefined || !rawPacket.subarray(0, 4096).includes('\r\n')
  return isLine
    ? ['414 URI Too Long', 'The request line is longer than 4096 bytes']
    : ['431 Request Header Fields Too Large', 'The headers are too large']
}
