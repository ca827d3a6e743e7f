import type { ServedDisk, ServedExtent } from '../disk/served-disk.ts'
import { badRequest, HttpError } from '../ticket/http-error.ts'
import type { Ticket } from '../ticket/ticket.ts'
import { type Exchange, number, parameter, reply } from './exchange.ts'
import { etagOf, isKnown } from './get.ts'
import { sendPieces } from './stream.ts'

/** Characters of a piece: a list may have any number of extents, and is never in memory as a whole. */
const PIECE = 64 * 1024

/** What an image has where: `context`, and, an extension, only of a range: `start` and `length`. */
export async function getExtents(exchange: Exchange, ticket: Ticket): Promise<void> {
  const { request, response } = exchange
  const context = parameter(exchange, 'context') ?? 'zero'
  if (context !== 'zero' && context !== 'dirty') {
    throw badRequest('The context is neither zero nor dirty')
  }
  const { 0: from = 0, 1: bytes } = [number(exchange, 'start'), number(exchange, 'length')]
  await ticket.use('read', request.socket, async (disk) => {
    if (context === 'dirty' && !(ticket.request.dirty && disk.hasDirty)) {
      const why = ticket.request.dirty
        ? 'The image has no dirty bitmap that can be used, or more than one'
        : 'The ticket is not one for dirty extents'
      throw new HttpError(404, why)
    }
    if (isKnown(request, disk)) return reply(exchange, 304, etagOf(disk))
    const start = Math.min(from, disk.size)
    const length = Math.min(bytes ?? disk.size, disk.size - start)
    response.writeHead(200, { 'content-type': 'application/json', ...etagOf(disk) })
    await sendPieces(response, jsonOf(disk, context, { start, length }), {
      ms: ticket.request.inactivity_timeout * 1000,
      signal: ticket.signal,
    })
  })
}

/** The JSON of extents, neighbours of equal flags being one. */
async function* jsonOf(
  disk: ServedDisk,
  context: 'zero' | 'dirty',
  range: { start: number; length: number },
): AsyncGenerator<string> {
  const show = context === 'zero' ? shownZero : shownDirty
  let text = '['
  let separator = ''
  let last: ServedExtent | undefined
  const batches = range.length > 0 ? disk.extents(context, range) : []
  for await (const batch of batches) {
    for (const extent of batch) {
      if (last && last.zero === extent.zero && last.dirty === extent.dirty) {
        if (context === 'dirty' || last.hole === extent.hole) {
          last.length += extent.length
          continue
        }
      }
      if (last) {
        text += separator + show(last)
        separator = ', '
      }
      last = { ...extent }
      if (text.length < PIECE) continue
      yield text
      text = ''
    }
  }
  yield `${text}${last ? separator + show(last) : ''}]\n`
}

function shownZero({ start, length, zero, hole }: ServedExtent): string {
  return `{"start": ${start}, "length": ${length}, "zero": ${zero}, "hole": ${hole}}`
}

function shownDirty({ start, length, dirty, zero }: ServedExtent): string {
  return `{"start": ${start}, "length": ${length}, "dirty": ${dirty}, "zero": ${zero}}`
}
