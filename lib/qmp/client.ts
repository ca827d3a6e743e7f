import { randomInt } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { BackupError, ioError } from '../errors.ts'
import { log } from '../log.ts'
import { parseQmpAddress } from './address.ts'
import { type EventFilter, QmpEvents } from './events.ts'
import { aborted, interrupted, requireNotAborted } from './interrupted.ts'
import {
  LineReader,
  parseMessage,
  type QmpGreeting,
  type QmpMessage,
  type QmpObject,
  QmpProtocolError,
} from './protocol.ts'
import { QmpError } from './qmp-error.ts'
import { startTimer, type WaitOptions } from './wait.ts'

/** How long connecting and negotiating may take, and a command unless it says otherwise. */
const DEFAULT_TIMEOUT_MS = 30_000

/** Commands that may wait for their answers at once. */
const MAX_PENDING = 256

/** Maximum bytes of commands that the server has not taken in. */
const MAX_UNSENT_BYTES = 16 * 2 ** 20

/** How a command is run. */
export interface ExecuteOptions extends WaitOptions {
  /** Run it out of band, before waiting commands (`exec-oob`): only if that was negotiated. */
  outOfBand?: boolean
}

interface PendingCommand {
  command: string
  resolve(value: unknown): void
  reject(error: BackupError): void
}

/**
 * A connection to the monitor of a QEMU or a qemu-storage-daemon. Commands may be run at the same
 * time; their answers are matched by ids and may come in any order. The memory that a peer can make it use
 * is bounded: a line in work, the answers that are waited for, and the queues of events. A peer that
 * breaks the protocol is disconnected, and every call fails with the reason.
 */
export class QmpClient {
  /** As messages name it. */
  readonly monitor: string
  readonly #socket: Socket
  readonly #lines = new LineReader()
  readonly #pending = new Map<number, PendingCommand>()
  readonly #queues = new Set<QmpEvents>()
  readonly #greeted: Promise<QmpGreeting>
  #greet!: { resolve(greeting: QmpGreeting): void; reject(error: BackupError): void }
  #greeting: QmpGreeting | undefined
  /**
   * Ids of other clients are others: a monitor serves one client after the other, and the late answer to
   * a command of the last one reaches the next.
   */
  readonly #firstId = randomInt(2 ** 47)
  #lastId = this.#firstId
  #ended: BackupError | undefined

  private constructor(monitor: string, socket: Socket) {
    this.monitor = monitor
    this.#socket = socket
    this.#greeted = new Promise((resolve, reject) => {
      this.#greet = { resolve, reject }
    })
    this.#greeted.catch(() => undefined)
    socket.on('data', (chunk) => this.#receive(chunk))
    socket.on('error', (error) => this.#end(ioError(monitor, error)))
    socket.on('close', () => {
      this.#end(new BackupError('IO', monitor, 'the monitor closed the connection'))
    })
  }

  /**
   * Connects, and negotiates.
   * @param address `PATH` of a Unix socket, or `HOST:PORT`
   * @param options.timeoutMs how long that may take, default 30,000
   * @param options.signal aborted at any time it closes the connection, and ends every call
   * @param options.capabilities to enable, if the server has them, such as `oob`
   * @throws BackupError USAGE, IO, ABORTED
   */
  static async connect(
    address: string,
    options: WaitOptions & { capabilities?: readonly string[] } = {},
  ): Promise<QmpClient> {
    const { timeoutMs = DEFAULT_TIMEOUT_MS, signal, capabilities = [] } = options
    const where = parseQmpAddress(address)
    requireNotAborted(address, signal)
    const client = new QmpClient(address, connect(where))
    const abort = () => client.#end(aborted(address, signal))
    signal?.addEventListener('abort', abort)
    client.#socket.once('close', () => signal?.removeEventListener('abort', abort))
    const timer = startTimer(timeoutMs, () => {
      const why = `no greeting within ${timeoutMs / 1000} s; another client may hold the monitor`
      client.#end(new BackupError('IO', address, why, { errno: 'ETIMEDOUT' }))
    })
    try {
      client.#greeting = await client.#greeted
      const enable = capabilities.filter((one) => client.capabilities.includes(one))
      await client.execute('qmp_capabilities', enable.length > 0 ? { enable } : undefined)
      return client
    } catch (error) {
      client.close()
      throw error
    } finally {
      clearTimeout(timer)
    }
  }

  /** Capabilities that the server offers, enabled or not. */
  get capabilities(): readonly string[] {
    return this.#greeting?.capabilities ?? []
  }

  /** The server's version. */
  get version(): QmpGreeting['version'] | undefined {
    return this.#greeting?.version
  }

  /**
   * Runs a command. When it is given up (`timeoutMs`, default 30,000; `signal`) the server may still
   * carry it out.
   * @returns the command's result
   * @throws QmpError if the server refuses; BackupError IO, naming the command, when the connection
   * ends or the time is over; ABORTED
   */
  async execute(command: string, args?: QmpObject, options: ExecuteOptions = {}): Promise<unknown> {
    const { timeoutMs = DEFAULT_TIMEOUT_MS, signal, outOfBand } = options
    requireNotAborted(command, signal)
    if (this.#ended) throw interrupted(command, this.#ended)
    if (this.#pending.size >= MAX_PENDING) {
      throw new BackupError('IO', command, `${MAX_PENDING} commands wait for answers already`)
    }
    if (this.#socket.writableLength > MAX_UNSENT_BYTES) {
      throw new BackupError('IO', command, 'the monitor does not read its commands')
    }
    const id = ++this.#lastId
    let timer: NodeJS.Timeout | undefined
    let abort = () => {}
    try {
      return await new Promise((resolve, reject) => {
        this.#pending.set(id, { command, resolve, reject })
        abort = () => reject(aborted(command, signal))
        signal?.addEventListener('abort', abort)
        timer = startTimer(timeoutMs, () => {
          const why = `no answer within ${timeoutMs / 1000} s`
          reject(new BackupError('IO', command, why, { errno: 'ETIMEDOUT' }))
        })
        const verb = outOfBand ? 'exec-oob' : 'execute'
        log('qmp', () => `${this.monitor}: ${verb} ${command}, id ${id}`)
        this.#socket.write(`${JSON.stringify({ [verb]: command, arguments: args, id })}\n`)
      })
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort)
      this.#pending.delete(id)
    }
  }

  /** A queue of the events that come from now on and fit. */
  events(filter: EventFilter = {}): QmpEvents {
    const queue: QmpEvents = new QmpEvents(this.monitor, filter, () => this.#queues.delete(queue))
    if (this.#ended) queue.fail(this.#ended)
    else this.#queues.add(queue)
    return queue
  }

  /** Closes the connection; waiting calls fail. */
  close(): void {
    this.#end(new BackupError('IO', this.monitor, 'the connection to the monitor was closed'))
  }

  /** Resolves once the connection is closed, by whichever side and for whatever reason. */
  async closed(): Promise<void> {
    if (this.#socket.closed) return
    // Not `once` of node:events, which rejects when an error comes first.
    await new Promise<void>((resolve) => this.#socket.once('close', () => resolve()))
  }

  #receive(chunk: Buffer): void {
    try {
      for (const line of this.#lines.push(chunk)) {
        if (this.#ended) return
        this.#take(parseMessage(line), line.length)
      }
    } catch (error) {
      if (!(error instanceof QmpProtocolError)) throw error
      const why = `is not a QMP monitor, or a broken one: it ${error.message}`
      this.#end(new BackupError('IO', this.monitor, why, { cause: error }))
    }
  }

  #take(message: QmpMessage, length: number): void {
    if (message.kind === 'greeting') {
      this.#greet.resolve(message.greeting)
    } else if (message.kind === 'event') {
      for (const queue of this.#queues) queue.offer(message.event, length)
    } else {
      this.#settle(message)
    }
  }

  #settle(message: Extract<QmpMessage, { kind: 'return' | 'error' }>): void {
    const { id } = message
    if (typeof id !== 'number' || !Number.isInteger(id)) {
      const what = message.kind === 'error' ? `: ${message.description}` : ''
      throw new QmpProtocolError(`sent an answer to no pending command${what}`)
    }
    // The answer to an abandoned command is dropped, and to one of the client before.
    const pending = this.#pending.get(id)
    if (!pending) return
    log('qmp', () => {
      const what = message.kind === 'return' ? 'returned' : `refused as ${message.qmpClass}`
      return `${this.monitor}: ${pending.command}, id ${id}: ${what}`
    })
    if (message.kind === 'return') pending.resolve(message.value)
    else pending.reject(new QmpError(pending.command, message.qmpClass, message.description))
  }

  #end(failure: BackupError): void {
    if (this.#ended) return
    this.#ended = failure
    log('qmp', () => `${this.monitor}: ended: ${failure.why}`)
    this.#socket.destroy()
    this.#greet.reject(failure)
    for (const { command, reject } of this.#pending.values()) reject(interrupted(command, failure))
    for (const queue of this.#queues) queue.fail(failure)
    this.#queues.clear()
  }
}
