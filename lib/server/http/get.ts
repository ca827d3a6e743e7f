import type { IncomingMessage } from 'node:http'
import type { Range } from '../../extents/range-set.ts'
import type { ServedDisk } from '../disk/served-disk.ts'
import { HttpError } from '../ticket/http-error.ts'
import type { Ticket } from '../ticket/ticket.ts'
import { type Exchange, reply } from './exchange.ts'
import { rangeOf } from './range.ts'
import { sendPieces } from './stream.ts'

/** The content of an image, or of a range of it; for HEAD only what it would be. */
export async function getImage(exchange: Exchange, ticket: Ticket): Promise<void> {
  const { request, response } = exchange
  await ticket.use('read', request.socket, async (disk) => {
    if (isKnown(request, disk)) return reply(exchange, 304, etagOf(disk))
    const { size, filename, inactivity_timeout } = ticket.request
    const bounds = { ticket: size, disk: disk.size }
    const header = wantsRange(request, disk)
    const range: Range = header
      ? rangeOf(header, bounds)
      : { start: 0, length: Math.min(size, disk.size) }
    const { start, length } = range
    response.writeHead(header ? 206 : 200, {
      'content-type': 'application/octet-stream',
      'content-length': `${length}`,
      'content-disposition': disposition(filename),
      'accept-ranges': 'bytes',
      ...(header && { 'content-range': `bytes ${start}-${start + length - 1}/${size}` }),
      ...etagOf(disk),
    })
    if (request.method === 'HEAD') return void response.end()
    let at = start
    await sendPieces(response, disk.read(range), {
      ms: inactivity_timeout * 1000,
      signal: ticket.signal,
      onSent(bytes) {
        ticket.transferred(at, bytes)
        at += bytes
      },
    })
  })
}

export function etagOf({ etag }: ServedDisk): Record<string, string> {
  return etag === undefined ? {} : { etag }
}

/**
 * Whether the client has what it asks for (If-None-Match).
 * @throws HttpError 412 if it wants nothing else than what was (If-Match)
 */
export function isKnown({ headers }: IncomingMessage, { etag }: ServedDisk): boolean {
  const { 'if-match': match, 'if-none-match': other } = headers
  if (match !== undefined && !names(match, etag)) {
    throw new HttpError(412, 'The image is not the one that was asked for')
  }
  return other !== undefined && names(other, etag)
}

function names(list: string, etag: string | undefined): boolean {
  if (list.trim() === '*') return true
  return etag !== undefined && list.split(',').some((one) => one.trim() === etag)
}

/** The range that is wanted; all of a disk that is not the one that it was of (If-Range). */
function wantsRange({ headers }: IncomingMessage, { etag }: ServedDisk): string | undefined {
  const condition = headers['if-range']
  return condition === undefined || condition === etag ? headers.range : undefined
}

function disposition(filename: string | undefined): string {
  if (filename === undefined) return 'attachment'
  // Other characters would end the header, or are not what every client takes them for.
  if (/^[\w .()+,@-]+$/.test(filename)) return `attachment; filename="${filename}"`
  // Half a surrogate pair cannot be encoded.
  const name = encodeURIComponent(Buffer.from(filename).toString())
  return `attachment; filename*=UTF-8''${name}`
}
