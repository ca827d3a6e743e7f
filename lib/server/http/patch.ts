import { badRequest } from '../ticket/http-error.ts'
import type { Ticket } from '../ticket/ticket.ts'
import { requireAligned } from './aligned.ts'
import { type Exchange, jsonBody, reply } from './exchange.ts'
import { requireWithin } from './range.ts'

/** Zeroes of one call: so many that others get their turn, and that a cancelled ticket ends soon. */
const STEP = 128 * 2 ** 20

/** Zeroes a range, or flushes. */
export async function patchImage(exchange: Exchange, ticket: Ticket): Promise<void> {
  const body = await jsonBody(exchange)
  const { op } = body
  if (op === 'flush') {
    await ticket.use('write', exchange.request.socket, async (disk) => disk.writer!.flush())
  } else if (op === 'zero') {
    await zero(exchange, ticket, body)
  } else {
    throw badRequest('The op is neither zero nor flush')
  }
  reply(exchange, 200)
}

async function zero(
  exchange: Exchange,
  ticket: Ticket,
  { size, offset = 0, flush = false }: Record<string, unknown>,
): Promise<void> {
  const [length, start] = [wholeOf('size', size), wholeOf('offset', offset)]
  if (typeof flush !== 'boolean') throw badRequest('flush is neither true nor false')
  await ticket.use('write', exchange.request.socket, async (disk) => {
    requireWithin({ start, length }, { ticket: ticket.request.size, disk: disk.size })
    requireAligned(disk, start, length)
    const writer = disk.writer!
    for (let at = start; at < start + length; at += STEP) {
      ticket.signal.throwIfAborted()
      const bytes = Math.min(STEP, start + length - at)
      await writer.zero(at, bytes)
      ticket.transferred(at, bytes)
    }
    if (flush) await writer.flush()
  })
}

function wholeOf(name: string, value: unknown): number {
  if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number
  throw badRequest(`${name} is not a whole number`)
}
