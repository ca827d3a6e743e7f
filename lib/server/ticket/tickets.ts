import { createHash, randomUUID } from 'node:crypto'
import { BackupError } from '../../errors.ts'
import { log } from '../../log.ts'
import type { DiskOptions } from './open-disk.ts'
import { checkTicket, checkTimeout, type TicketRequest } from './request.ts'
import { shortId, Ticket, type TicketInfo } from './ticket.ts'

/** How a ticket is ended. */
export interface CancelOptions {
  /** A new image is not made, even if all of it is there. Default: it gets its name if all was flushed. */
  discard?: boolean
}

/** The tickets of a server. All throw BackupError; USAGE for a ticket or a number that cannot be. */
export interface ImageTickets {
  /**
   * Adds a ticket, in place of one of the same id, which is discarded. The file of one that is written is begun.
   * @returns its id
   */
  add(ticket: TicketRequest): Promise<string>
  /**
   * Lets a ticket end so many seconds from now on, if it is not used.
   * @returns false if there is none of this id
   */
  extend(id: string, timeout: number): boolean
  /** A ticket as it stands; undefined if there is none of this id. */
  show(id: string): TicketInfo | undefined
  /**
   * Ends a ticket, and what is done with it. The new image that it was for gets its name if all that was written
   * was flushed, and is removed otherwise. Nothing happens if there is none of this id.
   * @returns false if something is still done with it after a minute
   */
  cancel(id: string, options?: CancelOptions): Promise<boolean>
}

/** As imageio waits. */
const REMOVE_MS = 60_000
const MOST_TICKETS = 2 ** 18

/** See ImageTickets. */
export class Tickets implements ImageTickets {
  /**
   * By the hash of the id: how long a look-up takes tells nothing about how much of an id was right.
   */
  readonly #tickets = new Map<string, Ticket>()
  readonly #options: DiskOptions

  constructor(options: DiskOptions) {
    this.#options = options
  }

  async add(given: TicketRequest): Promise<string> {
    const request = checkTicket(given, randomUUID)
    const { uuid } = request
    const key = keyOf(uuid)
    const before = this.#tickets.get(key)
    if (!before) this.#requireRoom()
    const ticket = new Ticket(request, this.#options)
    if (before) {
      this.#tickets.delete(key)
      await before.end(false)
    }
    if (ticket.canWrite && request.place.kind === 'file') await ticket.disk()
    this.#tickets.set(key, ticket)
    log('serve', () => {
      const { ops, size, url, timeout } = request
      return `ticket ${shortId(uuid)}: added, ${ops.join(' and ')} of ${size} bytes of ${url} for ${timeout} s`
    })
    return uuid
  }

  extend(id: string, timeout: number): boolean {
    const seconds = checkTimeout(timeout)
    const ticket = this.find(id)
    ticket?.extend(seconds)
    log(
      'serve',
      () => `ticket ${shortId(id)}: ${ticket ? `${seconds} s from now on` : 'not there'}`,
    )
    return ticket !== undefined
  }

  show(id: string): TicketInfo | undefined {
    return this.find(id)?.info()
  }

  async cancel(id: string, { discard = false }: CancelOptions = {}): Promise<boolean> {
    const key = keyOf(id)
    const ticket = this.#tickets.get(key)
    if (!ticket) return true
    ticket.cancel()
    if (!(await ticket.idle(REMOVE_MS))) return false
    try {
      const made = await ticket.end(!discard)
      const how =
        made === undefined ? '' : made ? ', the new image has its name' : ', the new image is gone'
      log('serve', () => `ticket ${shortId(id)}: removed${how}`)
    } finally {
      if (this.#tickets.get(key) === ticket) this.#tickets.delete(key)
    }
    return true
  }

  /** Ends all of them, without waiting for what is done with them. New images are discarded. */
  async clear(): Promise<void> {
    const all = [...this.#tickets.values()]
    this.#tickets.clear()
    await Promise.all(all.map((ticket) => ticket.end(false).catch(() => {})))
  }

  find(id: string): Ticket | undefined {
    return this.#tickets.get(keyOf(id))
  }

  /** @throws BackupError UNSUPPORTED */
  #requireRoom(): void {
    if (this.#tickets.size < MOST_TICKETS) return
    for (const [key, ticket] of this.#tickets) {
      if (!ticket.hasExpired) continue
      this.#tickets.delete(key)
      void ticket.end(false).catch(() => {})
    }
    if (this.#tickets.size < MOST_TICKETS) return
    throw new BackupError(
      'UNSUPPORTED',
      'tickets',
      `there are ${MOST_TICKETS} that have not expired`,
    )
  }
}

function keyOf(id: string): string {
  return createHash('sha256').update(id).digest('base64')
}
