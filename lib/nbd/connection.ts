import { setTimeout as delay } from 'node:timers/promises'
import { BackupError } from '../errors.ts'
import type { StatusRuns } from '../extents/intersect.ts'
import type { Range } from '../extents/range-set.ts'
import { SECTOR_SIZE } from '../format/qcow2/constants.ts'
import { log } from '../log.ts'
import { type NbdHandle, type NbdInfo, native } from '../native.ts'
import { LOST, wasClosed } from './lost.ts'
import type { NbdAddress } from './uri.ts'

/** How a server is reached. */
export interface NbdServer extends NbdAddress {
  /** How long it may take to get on with an answer. */
  readonly timeoutMs: number
  /** Cancels everything it is waiting for. */
  readonly signal?: AbortSignal
}

/** Abort reason when the source was closed, not aborted by the user. */
export class Closed extends Error {}

/** The part of an export that a connection needs. */
export type ReachedServer = Pick<NbdServer, 'uri' | 'displayUri' | 'timeoutMs' | 'signal'>

/** As often as a connection for reading is made again (native/source/nbd_client.h). */
const RETRIES = 5
const FIRST_WAIT_MS = 100
/** Timeouts that connections may take which are then lost without an answer. */
const MAX_TIMEOUTS = 3

/** Bytes, such that offsets of whole sectors are exact. */
const MAX_SIZE = 2 ** 53 - SECTOR_SIZE

/** Properties of the addon's errors: the failed operation, in libnbd's words, and the errno's name. */
interface NbdFailure extends Error {
  code?: string
  context?: string
}

/** The addon's error when a server refused block status, and the connection is still usable. */
const BLOCK_STATUS = 'block status'

/**
 * A connection that reads an export's block status, and ranges of it or writes them, at its caller's pace. Calls
 * are carried out one at a time. When the server's signal is aborted everything that is under way rejects at
 * once.
 */
export class NbdConnection {
  /** The export's description from the first connection. */
  readonly info: NbdInfo
  readonly #server: ReachedServer
  readonly #contexts: readonly string[]
  readonly #retries: number
  readonly #closed = new AbortController()
  #handle: NbdHandle | undefined
  #connecting: Promise<NbdHandle> | undefined

  private constructor(
    server: ReachedServer,
    contexts: readonly string[],
    info: NbdInfo,
    retries: number,
  ) {
    this.#server = server
    this.#contexts = contexts
    this.#retries = retries
    this.info = info
    server.signal?.addEventListener('abort', this.#close)
  }

  /**
   * @param contexts metadata contexts to ask for
   * @param retries how often in a row a lost connection is made again
   * @throws BackupError IO, ABORTED, or UNSUPPORTED without libnbd or if the export is too large
   */
  static async open(
    server: ReachedServer,
    contexts: readonly string[] = [],
    retries = RETRIES,
  ): Promise<NbdConnection> {
    try {
      const { handle, info } = await connect(server, contexts)
      if (info.size > MAX_SIZE) {
        native().nbdClose(handle)
        throw new BackupError('UNSUPPORTED', server.displayUri, 'the export is larger than 8 PiB')
      }
      const connection = new NbdConnection(server, contexts, info, retries)
      connection.#handle = handle
      return connection
    } catch (error) {
      throw nbdError(server, 'cannot connect', error)
    }
  }

  /** Another connection to the same export, for some of its contexts; made when it is needed. */
  another(contexts: readonly string[]): NbdConnection {
    const has = contexts.map((name) => this.info.contexts[this.#contexts.indexOf(name)])
    return new NbdConnection(this.#server, contexts, { ...this.info, contexts: has }, RETRIES)
  }

  /**
   * Asks for one block status reply, on a new connection if the old one is lost.
   * @returns for each context, in the order given, the server's status from `start` on; of one
   * that it does not have, nothing
   * @throws BackupError IO, ABORTED; SOURCE_CHANGED if the export differs after a reconnect
   */
  async status(start: number, length: number): Promise<StatusRuns[]> {
    return await this.#ask(`${BLOCK_STATUS} of ${length} bytes at ${start}`, (handle) =>
      native().nbdStatus(handle, start, length),
    )
  }

  /**
   * Does something on the connection, on a new one if that is lost. A server that is down is waited
   * for a while; one that lets itself be asked, and then drops the connection late each time, is not.
   */
  async #ask<T>(doing: string, call: (handle: NbdHandle) => Promise<T>): Promise<T> {
    let leftMs = MAX_TIMEOUTS * this.#server.timeoutMs
    for (let tries = 0; ; tries++) {
      const started = performance.now()
      let handle: NbdHandle | undefined
      try {
        handle = this.#handle ?? (await this.#connectAgain())
        return await call(handle)
      } catch (error) {
        leftMs -= performance.now() - started
        if (!this.#isLost(error, handle) || tries >= this.#retries || leftMs <= 0) {
          throw nbdError(this.#server, doing, error)
        }
        log('nbd', () => {
          const next = `connecting again, ${tries + 1} of ${this.#retries} times`
          return `${this.#server.displayUri}: connection lost during ${doing}; ${next}`
        })
        await delay(FIRST_WAIT_MS * 2 ** tries, undefined, this.#closed).catch(() => undefined)
      }
    }
  }

  /**
   * Discards ranges, on the server's terms of alignment: again on a new connection if the old one is
   * lost.
   * @throws BackupError IO, ABORTED; SOURCE_CHANGED as `status`
   */
  async trim(ranges: readonly Range[]): Promise<void> {
    if (ranges.length === 0) return
    const pairs = new Float64Array(ranges.flatMap(({ start, length }) => [start, length]))
    const { start } = ranges[0]
    const { start: last, length } = ranges[ranges.length - 1]
    await this.#ask(`discard between ${start} and ${last + length}`, (handle) =>
      native().nbdTrim(handle, pairs),
    )
  }

  /**
   * Reads a range, on the server's terms of alignment; on a new connection if the old one is lost.
   * @throws BackupError as `status`
   */
  async read(start: number, length: number): Promise<Buffer> {
    return await this.#ask(`read of ${length} bytes at ${start}`, (handle) =>
      native().nbdRead(handle, start, length),
    )
  }

  /**
   * Writes bytes; again on a new connection if the old one is lost.
   * @throws BackupError as `status`
   */
  async write(start: number, bytes: Buffer): Promise<void> {
    await this.#ask(`write of ${bytes.length} bytes at ${start}`, (handle) =>
      native().nbdWrite(handle, start, bytes),
    )
  }

  /**
   * Makes a range zero.
   * @param noHole it is to take up room on the server
   * @throws BackupError as `status`
   */
  async zero(start: number, length: number, noHole: boolean): Promise<void> {
    await this.#ask(`zeroes of ${length} bytes at ${start}`, (handle) =>
      native().nbdZero(handle, start, length, noHole),
    )
  }

  /**
   * Makes durable what was written, also over other connections of a server with multi-conn.
   * @throws BackupError as `status`
   */
  async flush(): Promise<void> {
    await this.#ask('flush', (handle) => native().nbdFlush(handle))
  }

  /** Hands the connection out, if there is one; another is made when something is asked again. */
  take(): NbdHandle | undefined {
    const handle = this.#handle
    this.#handle = undefined
    return handle
  }

  /** Disconnects until the next request. */
  release(): void {
    if (this.#handle) native().nbdClose(this.#handle)
    this.#handle = undefined
  }

  /** Cancels requests under way, too. */
  close(): void {
    this.#close()
  }

  readonly #close = (): void => {
    this.#closed.abort()
    this.#server.signal?.removeEventListener('abort', this.#close)
    this.release()
  }

  /** Whether a call failed because there is, or was, no connection; it can be tried again then. */
  #isLost(error: unknown, handle: NbdHandle | undefined): boolean {
    const { code = '' } = error as NbdFailure
    // Another call has noticed it before, and may have a new one by now.
    const isOld = handle !== undefined && handle !== this.#handle
    if (isOld && code === 'ECANCELED') return !this.#closed.signal.aborted
    if (this.#closed.signal.aborted || error instanceof BackupError || code === 'ETIMEDOUT')
      return false
    // Further replies over such a connection cannot be trusted.
    if (code === 'EPROTO') this.release()
    if (code === 'EPROTO') return false
    if (LOST.includes(code)) this.release()
    return !this.#handle
  }

  /** One for all calls that need it. */
  #connectAgain(): Promise<NbdHandle> {
    this.#connecting ??= this.#reconnect()
      .then((handle) => {
        this.#handle = handle
        return handle
      })
      .finally(() => {
        this.#connecting = undefined
      })
    return this.#connecting
  }

  async #reconnect(): Promise<NbdHandle> {
    const { signal } = this.#closed
    const { handle, info } = await connect({ ...this.#server, signal }, this.#contexts)
    const before = this.info
    const contexts = info.contexts.join() === before.contexts.join()
    if (contexts && info.fingerprint === before.fingerprint) return handle
    native().nbdClose(handle)
    const what =
      info.size === before.size
        ? `another ${difference(before, info)}`
        : `${info.size} bytes and other metadata where ${before.size} were`
    throw new BackupError(
      'SOURCE_CHANGED',
      this.#server.displayUri,
      `the server came back with ${what}`,
    )
  }
}

/** The first difference between two exports of one size. */
function difference(before: NbdInfo, now: NbdInfo): string {
  const lines = now.fingerprint.split('\n')
  const other = before.fingerprint.split('\n').find((line, i) => line !== lines[i])
  return other === undefined ? 'set of metadata contexts' : `export: ${other.split(' ')[0]}`
}

/** Connects, unless the server's signal is aborted first. */
async function connect(
  { uri, displayUri, timeoutMs, signal }: ReachedServer,
  contexts: readonly string[],
): Promise<{ handle: NbdHandle; info: NbdInfo }> {
  signal?.throwIfAborted()
  const handle = native().nbdOpen({ uri, timeoutMs, contexts: [...contexts] })
  const close = () => native().nbdClose(handle)
  signal?.addEventListener('abort', close)
  try {
    const info = await native().nbdConnect(handle)
    log('nbd', () => {
      const has = contexts.map((name, i) => `${name} ${info.contexts[i] ? 'offered' : 'missing'}`)
      const can = info.multiConn ? 'takes several connections' : 'takes one connection'
      return `${displayUri}: connected; ${info.size} bytes, ${[can, ...has].join(', ')}`
    })
    return { handle, info }
  } catch (error) {
    log('nbd', () => `${displayUri}: cannot connect: ${(error as NbdFailure).code ?? 'no errno'}`)
    close()
    throw error
  } finally {
    signal?.removeEventListener('abort', close)
  }
}

/** Whether a failure is the server's answer to a question about block status, and not its loss. */
export function isRefusedStatus(error: unknown): boolean {
  if (!(error instanceof BackupError)) return false
  const { code = '', context } = (error.cause ?? {}) as NbdFailure
  return context === BLOCK_STATUS && ![...LOST, 'ECANCELED', 'EPROTO'].includes(code)
}

/**
 * Describes a failed call about an export. Errors of ours pass unchanged.
 * @param doing the operation tried
 */
export function nbdError(server: ReachedServer, doing: string, error: unknown): BackupError {
  if (error instanceof BackupError) return error
  const { code, context = '', message } = error as NbdFailure
  const options = { cause: error, errno: code }
  const { displayUri, uri, timeoutMs, signal } = server
  if (signal?.reason instanceof Closed) {
    return new BackupError('IO', displayUri, `${doing}: the source was closed`, {
      errno: 'ECANCELED',
    })
  }
  if (signal?.aborted) {
    return new BackupError('ABORTED', displayUri, 'interrupted', { cause: signal.reason })
  }
  if (code === 'ELIBACC') {
    const why = 'NBD needs libnbd, which is not installed; on Debian: apt install libnbd0'
    return new BackupError('UNSUPPORTED', displayUri, why, options)
  }
  if (code === 'ETIMEDOUT') {
    const why =
      `${doing}: no answer within ${timeoutMs / 1000} s (a server may also take no more clients at ` +
      'once: qemu-nbd --shared)'
    return new BackupError('IO', displayUri, why, { ...options, hint: 'timeoutMs' })
  }
  if (wasClosed(code, context)) {
    return new BackupError('IO', displayUri, `${doing}: the server closed the connection`, options)
  }
  // libnbd's own words end with the reason; those of the addon lack it.
  const words = /^nbd_\w+: (?:connect: )?(.*)$/s.exec(context)?.[1]
  const reason = words ?? (code === 'EPROTO' ? context : message.replace(`${context}: `, ''))
  // libnbd repeats a URI that it does not understand.
  return new BackupError(
    'IO',
    displayUri,
    `${doing}: ${reason.replaceAll(uri, displayUri)}`,
    options,
  )
}
