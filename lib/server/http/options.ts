import { MAX_CONNECTIONS, type Ticket } from '../ticket/ticket.ts'
import type { ImagesContext } from './context.ts'
import { type Exchange, reply } from './exchange.ts'

const READING = ['checksum', 'extents']
const WRITING = ['checksum', 'extents', 'flush', 'zero']

/** What can be done with an image; without a ticket, with any. Opens the disk, and renews the ticket. */
export async function getOptions(
  exchange: Exchange,
  ticket: Ticket | undefined,
  { unixSocket }: ImagesContext,
): Promise<void> {
  await ticket?.use('read', exchange.request.socket, async () => {})
  const writes = ticket?.canWrite ?? true
  const allow = writes ? 'OPTIONS,HEAD,GET,PUT,PATCH' : 'OPTIONS,HEAD,GET'
  reply(
    exchange,
    200,
    { allow },
    {
      features: writes ? WRITING : READING,
      ...(unixSocket !== undefined && { unix_socket: unixSocket }),
      ...(ticket && { max_readers: MAX_CONNECTIONS, max_writers: MAX_CONNECTIONS }),
    },
  )
}
