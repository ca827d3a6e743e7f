import { isBackupError } from '../../errors.ts'
import { badRequest, HttpError } from '../ticket/http-error.ts'
import type { TicketRequest } from '../ticket/request.ts'
import type { Tickets } from '../ticket/tickets.ts'
import { type Exchange, flag, jsonBody, reply } from './exchange.ts'

const TICKET = /^\/tickets\/(.*)$/s
const METHODS = ['GET', 'PUT', 'PATCH', 'DELETE']

/**
 * Answers a request about tickets, as imageio's control service does.
 * @throws HttpError, BackupError
 */
export async function answerControl(exchange: Exchange, tickets: Tickets): Promise<void> {
  const { request, path } = exchange
  const { method = '' } = request
  const id = TICKET.exec(path)?.[1]
  if (id === undefined) throw new HttpError(404, 'There is nothing of this path')
  if (!METHODS.includes(method)) {
    throw new HttpError(405, 'The method is not allowed', { allow: METHODS.join(',') })
  }
  if (id === '' && method === 'DELETE') {
    await tickets.clear()
    return reply(exchange, 204)
  }
  if (id === '') throw badRequest('The ticket id is missing')
  switch (method) {
    case 'GET': {
      const info = tickets.show(id)
      if (!info) throw missing()
      return reply(exchange, 200, {}, info)
    }
    case 'PUT':
      return await put(exchange, tickets)
    case 'PATCH': {
      const { timeout } = await jsonBody(exchange)
      if (!tickets.extend(id, timeout as number)) throw missing()
      return reply(exchange, 200)
    }
    default: {
      const discard = flag(exchange, 'discard', false)
      if (!(await told(() => tickets.cancel(id, { discard })))) {
        throw new HttpError(409, 'The ticket is still in use')
      }
      return reply(exchange, 204)
    }
  }
}

/** The id of the path is ignored: that of the body counts. */
async function put(exchange: Exchange, tickets: Tickets): Promise<void> {
  const ticket = await jsonBody(exchange)
  try {
    const uuid = await tickets.add(ticket as unknown as TicketRequest)
    reply(exchange, 200, {}, ticket.uuid === undefined ? { uuid } : '')
  } catch (error) {
    if (isBackupError(error)) throw badRequest(error.message)
    throw error
  }
}

/** Who has the control socket is told what went wrong. */
async function told<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw isBackupError(error) ? new HttpError(500, error.message) : error
  }
}

function missing(): HttpError {
  return new HttpError(404, 'There is no such ticket')
}
