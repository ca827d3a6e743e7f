import { argumentError } from '../../errors.ts'
import { FORMAT } from '../../options.ts'
import {
  BOOLEAN,
  choice,
  list,
  matching,
  ownArgument,
  type Rule,
  record,
  TEXT,
  whole,
} from '../../schema.ts'
import { type Place, placeOf } from './url.ts'

/**
 * A ticket: who has its id may do its operations with one disk, for a while. The fields are those of
 * ovirt-imageio; `bitmap` and `format` are ours.
 */
export interface TicketRequest {
  /** The id, and all the secret there is. Default: a random one of 122 bits. */
  uuid?: string
  /** Bytes: no request may go past it. May be less or more than the disk has. */
  size: number
  /** Whoever may write may also read. */
  ops: readonly ('read' | 'write')[]
  /** Seconds that it lives after it was added, extended, or last used. */
  timeout: number
  /**
   * The disk: `file:///PATH`, `nbd:unix:PATH[:exportname=NAME]`, `nbd:HOST:PORT[:exportname=NAME]`, an NBD URI, or
   * `repo:MACHINE@POINT/DISK`. A file that is written is a new one.
   */
  url: string
  /** Seconds after which a client that takes or brings nothing is cut off. Default 60. */
  inactivity_timeout?: number
  /** Only for logs. */
  transfer_id?: string
  /** The name by which a browser would store the image. */
  filename?: string
  /** Zeroes that are written may become holes, of an NBD export. Default: no. */
  sparse?: boolean
  /** Tell what a dirty bitmap has as written. Default: no. */
  dirty?: boolean
  /** The bitmap, with `dirty`. Default: the only one that the image has, or the server exports. */
  bitmap?: string
  /**
   * Of a file. Of one that is read, default: recognised by its content; of a new one: qcow2 if its name ends in
   * `.qcow2`, else raw.
   */
  format?: 'raw' | 'qcow2'
}

/** A ticket's fields, all of them, checked. */
export interface CheckedTicket
  extends Omit<Required<TicketRequest>, 'filename' | 'format' | 'bitmap'> {
  filename?: string
  format?: 'raw' | 'qcow2'
  bitmap?: string
  place: Place
}

export const DEFAULT_INACTIVITY_TIMEOUT = 60
/** A year: a timer of Node's takes no more than 24 days, and nobody waits for one as long. */
const MAX_SECONDS = 366 * 86_400
const DAY = 86_400
const MAX_ID = 1024

const ID = matching(
  new RegExp(`^[^/]{1,${MAX_ID}}$`, 's'),
  `an id of 1 to ${MAX_ID} characters without a slash`,
)

const TICKET: Rule<TicketRequest> = record(
  {
    size: whole(0),
    ops: list(choice('read', 'write')),
    timeout: whole(0, MAX_SECONDS),
    url: TEXT,
  },
  {
    uuid: ID,
    inactivity_timeout: whole(1, DAY),
    transfer_id: TEXT,
    filename: TEXT,
    sparse: BOOLEAN,
    dirty: BOOLEAN,
    bitmap: TEXT,
    format: FORMAT,
  },
  // oVirt's engine may send more.
  { open: true },
)

const TIMEOUT = whole(0, MAX_SECONDS)

/**
 * Checks a ticket.
 * @throws BackupError USAGE naming the field
 */
export function checkTicket(given: unknown, newId: () => string): CheckedTicket {
  const request = ownArgument('ticket', TICKET, given)
  const { size, ops, timeout, url, sparse = false, dirty = false } = request
  const { uuid = newId(), inactivity_timeout = DEFAULT_INACTIVITY_TIMEOUT } = request
  const { transfer_id = newId(), filename, bitmap, format } = request
  if (ops.length === 0) throw argumentError('ops', 'is empty; it has read, write or both')
  const place = placeOf(url)
  const writes = ops.includes('write')
  if (writes && place.kind === 'repository') {
    throw argumentError('ops', 'what a repository has is never written to')
  }
  if (writes && place.kind === 'file' && size % 512 !== 0) {
    throw argumentError(
      'size',
      `${size} is not a multiple of 512, as the size of a new image must be`,
    )
  }
  if (bitmap !== undefined && !dirty)
    throw argumentError('bitmap', 'is only for a ticket that is dirty')
  return {
    ...{ uuid, size, ops, timeout, url, inactivity_timeout, transfer_id, filename },
    ...{ sparse, dirty, bitmap, format, place },
  }
}

/** @throws BackupError USAGE */
export function checkTimeout(given: unknown): number {
  return ownArgument('timeout', TIMEOUT, given)
}
