import type { Socket } from 'node:net'
import { RangeSet } from '../../extents/range-set.ts'
import { log } from '../../log.ts'
import type { ServedDisk } from '../disk/served-disk.ts'
import { forbidden, HttpError } from './http-error.ts'
import { type DiskOptions, openDisk } from './open-disk.ts'
import { type CheckedTicket, DEFAULT_INACTIVITY_TIMEOUT } from './request.ts'

/** A ticket as it stands; the fields are those of ovirt-imageio. */
export interface TicketInfo {
  uuid: string
  size: number
  ops: readonly ('read' | 'write')[]
  timeout: number
  url: string
  inactivity_timeout: number
  transfer_id: string
  filename?: string
  sparse: boolean
  dirty: boolean
  bitmap?: string
  format?: 'raw' | 'qcow2'
  /** Something is being done with it. */
  active: boolean
  /** It was cancelled, or a new image that it was for is gone. */
  canceled: boolean
  /** Connections that used it and are still there. */
  connections: number
  /** When it ends, in seconds of the system's monotonic clock. */
  expires: number
  /** Seconds since it was last used. */
  idle_time: number
  /** Bytes that were read or written, each once; of a ticket with one operation. */
  transferred?: number
}

/** Told to clients: as many readers and as many writers gain something. */
export const MAX_CONNECTIONS = 8
/**
 * Connections that may use a ticket at once. oVirt's client opens one more than it is told, and does not close
 * them before it opens others.
 */
const MOST_CONNECTIONS = 2 * MAX_CONNECTIONS
/** Areas of which it is known exactly what was transferred: beyond them bytes are counted. */
const MOST_AREAS = 65_536

/** Seconds that a connection may be idle: those of the ticket that it used last. */
const idleTimes = new WeakMap<Socket, number>()

/** How long a connection may wait for its next request, milliseconds. */
export function idleTime(socket: Socket): number {
  return (idleTimes.get(socket) ?? DEFAULT_INACTIVITY_TIMEOUT) * 1000
}

/** Seconds of the monotonic clock. */
export function monotonic(): number {
  return Number(process.hrtime.bigint() / 1_000_000n) / 1000
}

/** An id in a log: enough to tell tickets apart, not enough to use one. */
export function shortId(id: string): string {
  return id.length > 16 ? `${id.slice(0, 8)}…` : '…'
}

/** A ticket, and the disk behind it, which is opened when it is first used. */
export class Ticket {
  readonly request: CheckedTicket
  readonly #options: DiskOptions
  /** Made when something waits for it: there may be very many tickets. */
  #stop: AbortController | undefined
  #canceled = false
  readonly #connections = new Set<Socket>()
  readonly #transferred = new RangeSet()
  /** Bytes beyond those. */
  #more = 0
  #expires: number
  #used = monotonic()
  #running = 0
  #idle: (() => void)[] = []
  #disk: Promise<ServedDisk> | undefined
  #timer: NodeJS.Timeout | undefined
  #ended: Promise<boolean | undefined> | undefined

  constructor(request: CheckedTicket, options: DiskOptions) {
    this.request = request
    this.#options = options
    this.#expires = this.#used + request.timeout
  }

  get canceled(): boolean {
    return this.#canceled
  }

  /** Aborted when it is cancelled. */
  get signal(): AbortSignal {
    this.#stop ??= new AbortController()
    if (this.#canceled) this.cancel()
    return this.#stop.signal
  }

  get hasExpired(): boolean {
    return monotonic() >= this.#expires
  }

  get canWrite(): boolean {
    return this.request.ops.includes('write')
  }

  info(): TicketInfo {
    const { place: _, ...fields } = this.request
    const active = this.#running > 0
    return {
      ...fields,
      active,
      canceled: this.canceled,
      connections: this.#connections.size,
      expires: Math.floor(this.#expires),
      idle_time: active ? 0 : Math.floor(monotonic() - this.#used),
      ...(fields.ops.length === 1 && { transferred: this.#transferred.bytes + this.#more }),
    }
  }

  /** @param timeout seconds from now on */
  extend(timeout: number): void {
    this.#expires = monotonic() + timeout
    this.#watch()
  }

  /**
   * Does something with the disk for a client.
   * @throws HttpError 403 if the ticket does not allow it, 503 if too many use it; whatever the work throws
   */
  async use<T>(
    op: 'read' | 'write',
    socket: Socket,
    work: (disk: ServedDisk) => Promise<T>,
  ): Promise<T> {
    if (this.canceled) throw forbidden('The ticket was cancelled')
    if (this.hasExpired) throw forbidden('The ticket has expired')
    if (op === 'write' && !this.canWrite) throw forbidden('The ticket does not allow writing')
    this.#connect(socket)
    this.#running++
    try {
      return await work(await this.disk())
    } finally {
      this.#running--
      this.#used = monotonic()
      // One that ended meanwhile stays so.
      if (!this.canceled) this.#expires = Math.max(this.#expires, this.#used + this.request.timeout)
      if (this.#running === 0) for (const resolve of this.#idle.splice(0)) resolve()
    }
  }

  /** Counts bytes that a client has got, or brought. */
  transferred(start: number, length: number): void {
    if (this.#transferred.count < MOST_AREAS) this.#transferred.add({ start, length })
    else this.#more += length
  }

  /** The disk; opened again at the next use where that failed. */
  disk(): Promise<ServedDisk> {
    this.#disk ??= openDisk(this.request, this.#options).then(
      (disk) => {
        this.#watch()
        return disk
      },
      (error) => {
        this.#disk = undefined
        throw error
      },
    )
    return this.#disk
  }

  /** Resolves when nothing is done with it any more: false if that takes too long. */
  async idle(ms: number): Promise<boolean> {
    if (this.#running === 0) return true
    return await new Promise((resolve) => {
      const timer = setTimeout(() => resolve(false), ms)
      this.#idle.push(() => {
        clearTimeout(timer)
        resolve(true)
      })
    })
  }

  /** Refuses what comes from now on, and stops what is under way. */
  cancel(): void {
    this.#canceled = true
    this.#stop?.abort(new HttpError(403, 'The ticket was cancelled'))
  }

  /**
   * Closes the disk, for good.
   * @param well a new image that is complete gets its name
   * @returns whether it did; undefined if this is no ticket for one
   * @throws BackupError if it could not
   */
  end(well: boolean): Promise<boolean | undefined> {
    this.#ended ??= this.#end(well)
    return this.#ended
  }

  async #end(well: boolean): Promise<boolean | undefined> {
    this.cancel()
    clearTimeout(this.#timer)
    const disk = await this.#disk?.catch(() => undefined)
    this.#disk = undefined
    try {
      return well ? await disk?.finish?.() : undefined
    } finally {
      await disk?.close()
      // Clients see that it ended, and a kept connection is of no use any more.
      for (const socket of this.#connections) socket.destroySoon()
    }
  }

  #connect(socket: Socket): void {
    idleTimes.set(socket, this.request.inactivity_timeout)
    if (this.#connections.has(socket)) return
    if (this.#connections.size >= MOST_CONNECTIONS) {
      const why = `The ticket is in use by ${MOST_CONNECTIONS} connections`
      throw new HttpError(503, why, { connection: 'close' })
    }
    this.#connections.add(socket)
    socket.once('close', () => this.#connections.delete(socket))
  }

  /** Closes the disk when the ticket has expired: a new image is gone then. */
  #watch(): void {
    clearTimeout(this.#timer)
    if (!this.#disk || this.canceled) return
    const ms = Math.max(0, (this.#expires - monotonic()) * 1000)
    this.#timer = setTimeout(() => this.#look(), Math.min(ms + 1, 2 ** 31 - 1)).unref()
  }

  #look(): void {
    if (!this.hasExpired || this.#running > 0) {
      this.#watch()
      return
    }
    log('serve', () => `ticket ${shortId(this.request.uuid)}: expired`)
    if (this.canWrite && this.request.place.kind === 'file') {
      void this.end(false)
      return
    }
    const disk = this.#disk
    this.#disk = undefined
    disk?.then((open) => open.close()).catch(() => {})
  }
}
