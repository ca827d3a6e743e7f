/**
 * The guest agent's protocol (QEMU's docs/interop/qemu-ga.rst): JSON objects, one per line, without
 * greeting, events or dependable ids. The guest is not trusted, and whoever spoke to the agent before may
 * have left answers behind.
 */
import { randomInt } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { BackupError, ioError } from '../errors.ts'
import { log } from '../log.ts'
import { parseQmpAddress } from './address.ts'
import { aborted, interrupted, requireNotAborted } from './interrupted.ts'
import { LineReader, parseMessage, type QmpObject, QmpProtocolError } from './protocol.ts'
import { QmpError } from './qmp-error.ts'
import { startTimer, type WaitOptions } from './wait.ts'

/** How long the agent may take to answer to a sync: it may not run, or be busy with somebody else. */
const SYNC_TIMEOUT_MS = 10_000
/** How long a command may take unless it says otherwise. */
const DEFAULT_TIMEOUT_MS = 30_000
/** Maximum bytes of an answer. */
const MAX_ANSWER_BYTES = 2 ** 20
/** No byte of JSON: it ends whatever the agent has half read, and precedes the answer to a sync. */
const DELIMITER = 0xff

/** What a command waits for; `undefined` leaves it waiting. */
type Taker = (line: string) => { value: unknown } | undefined

interface WaitingCommand {
  command: string
  take: Taker
  resolve(value: unknown): void
  reject(error: unknown): void
}

/**
 * A connection to a guest agent. One command at a time: the protocol has no more. Each command
 * that got no answer in time is followed by a sync before the next, which drops its late answer.
 */
export class GuestAgent {
  /** As messages name it. */
  readonly address: string
  readonly #socket: Socket
  readonly #lines = new LineReader(MAX_ANSWER_BYTES)
  #waiting: WaitingCommand | undefined
  #synced = false
  #ended: BackupError | undefined

  private constructor(address: string, socket: Socket) {
    this.address = address
    this.#socket = socket
    socket.on('data', (chunk) => this.#receive(chunk))
    socket.on('error', (error) => this.#end(ioError(address, error)))
    socket.on('close', () => {
      this.#end(new BackupError('IO', address, 'the guest agent closed the connection'))
    })
  }

  /**
   * Connects, and waits until an agent answers.
   * @param address `PATH` of a Unix socket, or `HOST:PORT`
   * @param options.timeoutMs how long the answer may take, default 10,000
   * @throws BackupError USAGE, IO, ABORTED
   */
  static async connect(address: string, options: WaitOptions = {}): Promise<GuestAgent> {
    requireNotAborted(address, options.signal)
    const agent = new GuestAgent(address, connect(parseQmpAddress(address)))
    try {
      await agent.sync(options)
      return agent
    } catch (error) {
      agent.close()
      throw error
    }
  }

  /**
   * Makes sure that the agent answers, and that what comes next answers what is asked next.
   * @throws BackupError IO, ABORTED
   */
  async sync({ timeoutMs = SYNC_TIMEOUT_MS, signal }: WaitOptions = {}): Promise<void> {
    const id = randomInt(1, 2 ** 31)
    this.#synced = false
    const isOurs: Taker = (line) => {
      const message = parseMessage(line)
      return message.kind === 'return' && message.value === id ? { value: id } : undefined
    }
    // Without the first byte, what an earlier client did not finish would swallow the command.
    this.#socket.write(Buffer.of(DELIMITER))
    await this.#ask('guest-sync-delimited', { id }, isOurs, { timeoutMs, signal })
    this.#synced = true
  }

  /**
   * Runs a command. When it is given up the agent may still carry it out.
   * @param options.timeoutMs how long it may take, default 30,000
   * @returns its result
   * @throws QmpError if the agent refuses; BackupError IO, naming the command, when the connection
   * ends or the time is over; ABORTED
   */
  async execute(command: string, args?: QmpObject, options: WaitOptions = {}): Promise<unknown> {
    const { timeoutMs = DEFAULT_TIMEOUT_MS, signal } = options
    if (!this.#synced) await this.sync({ timeoutMs, signal })
    const answer: Taker = (line) => {
      const message = parseMessage(line)
      if (message.kind === 'return') return { value: message.value }
      if (message.kind !== 'error') return undefined
      throw new QmpError(command, message.qmpClass, message.description)
    }
    return await this.#ask(command, args, answer, { timeoutMs, signal })
  }

  /** Closes the connection; a waiting call fails. */
  close(): void {
    this.#end(new BackupError('IO', this.address, 'the connection to the guest agent was closed'))
  }

  async #ask(
    command: string,
    args: QmpObject | undefined,
    take: Taker,
    { timeoutMs, signal }: WaitOptions & { timeoutMs: number },
  ): Promise<unknown> {
    requireNotAborted(command, signal)
    if (this.#ended) throw interrupted(command, this.#ended)
    if (this.#waiting) throw new BackupError('IO', command, 'the guest agent is busy with another')
    let timer: NodeJS.Timeout | undefined
    let abort = () => {}
    try {
      return await new Promise((resolve, reject) => {
        this.#waiting = { command, take, resolve, reject }
        abort = () => reject(aborted(command, signal))
        signal?.addEventListener('abort', abort)
        timer = startTimer(timeoutMs, () => {
          const why = `${this.address}: no answer from the guest agent within ${timeoutMs / 1000} s`
          reject(new BackupError('IO', command, why, { errno: 'ETIMEDOUT' }))
        })
        log('qmp', () => `${this.address}: ${command}`)
        this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`)
      })
    } catch (error) {
      // Whatever comes now is late.
      if (!(error instanceof QmpError)) this.#synced = false
      throw error
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort)
      this.#waiting = undefined
    }
  }

  #receive(chunk: Buffer): void {
    const delimiter = chunk.lastIndexOf(DELIMITER)
    if (delimiter >= 0) this.#lines.reset()
    try {
      for (const line of this.#lines.push(chunk.subarray(delimiter + 1))) this.#take(line)
    } catch (error) {
      if (!(error instanceof QmpProtocolError)) throw error
      this.#end(new BackupError('IO', this.address, `the guest agent ${error.message}`))
    }
  }

  #take(line: string): void {
    // Nobody waits for it: the late answer to an abandoned command.
    if (!this.#waiting) return
    try {
      const taken = this.#waiting.take(line)
      if (taken) this.#waiting.resolve(taken.value)
    } catch (error) {
      // Until a sync is answered there may be halves of lines.
      if (error instanceof QmpProtocolError) {
        if (this.#synced) throw error
      } else {
        this.#waiting.reject(error)
      }
    }
  }

  #end(failure: BackupError): void {
    if (this.#ended) return
    this.#ended = failure
    this.#socket.destroy()
    this.#waiting?.reject(interrupted(this.#waiting.command, failure))
  }
}
