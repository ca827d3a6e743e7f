import type { Ticket } from '../ticket/ticket.ts'
import { requireAligned } from './aligned.ts'
import { type Exchange, flag, reply, requireLength } from './exchange.ts'
import { contentStart, requireWithin } from './range.ts'
import { bodyPieces } from './stream.ts'

/** Pieces that are written at once. */
const WRITES = 4

/** Writes the body, from where Content-Range begins. */
export async function putImage(exchange: Exchange, ticket: Ticket): Promise<void> {
  const { request } = exchange
  const length = requireLength(request)
  const flush = flag(exchange, 'flush', true)
  const start = contentStart(request.headers['content-range'])
  await ticket.use('write', request.socket, async (disk) => {
    const { size, inactivity_timeout } = ticket.request
    requireWithin({ start, length }, { ticket: size, disk: disk.size })
    requireAligned(disk, start, length)
    const writer = disk.writer!
    const ms = inactivity_timeout * 1000
    const { signal } = ticket
    const writing = new Set<Promise<void>>()
    let at = start
    try {
      for await (const piece of bodyPieces(request, { length, ms, signal })) {
        const write = writer.write(at, piece).then(() => {
          writing.delete(write)
        })
        // It is awaited below, but perhaps not before it fails.
        write.catch(() => {})
        writing.add(write)
        ticket.transferred(at, piece.length)
        at += piece.length
        if (writing.size >= WRITES) await Promise.race(writing)
      }
    } finally {
      // Nothing is written any more when the answer is known.
      await Promise.allSettled(writing)
    }
    await Promise.all(writing)
    if (flush) await writer.flush()
    reply(exchange, 200)
  })
}
