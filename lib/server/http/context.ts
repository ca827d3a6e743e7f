import type { Tickets } from '../ticket/tickets.ts'

/** What the answers to all clients depend on. */
export interface ImagesContext {
  tickets: Tickets
  /** Path of the socket on which clients of this host find the same images. */
  unixSocket?: string
}
