import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { BackupError, ioError } from '../../../lib/errors.ts'

type Message = Record<string, unknown>
/** Of an event: its name and data. */
type Wanted = (event: string, data: Message) => boolean

/** As much of a QMP client as the harness needs: one command at a time, and waiting for events. */
export class QmpClient {
  readonly #path: string
  readonly #socket: Socket
  readonly #messages: Message[] = []
  #wake = () => {}

  private constructor(path: string, socket: Socket) {
    this.#path = path
    this.#socket = socket
    const lines = createInterface({ input: socket })
    lines.on('line', (line) => {
      this.#messages.push(JSON.parse(line))
      this.#wake()
    })
    // readline hands on the socket's errors. What follows them is the close.
    lines.on('error', () => {})
    socket.on('close', () => this.#wake())
  }

  /**
   * Connects to a monitor's Unix socket and ends its negotiation.
   * @param signal an abort closes the connection, and so ends every wait
   * @throws BackupError IO if nothing listens
   */
  static async connect(path: string, signal: AbortSignal): Promise<QmpClient> {
    const socket = connect(path)
    try {
      await once(socket, 'connect', { signal })
    } catch (error) {
      socket.destroy()
      throw ioError(path, error)
    }
    const stop = () => socket.destroy()
    signal.addEventListener('abort', stop)
    socket.once('close', () => signal.removeEventListener('abort', stop))
    const client = new QmpClient(path, socket)
    await client.#take((message) => 'QMP' in message)
    await client.execute('qmp_capabilities')
    return client
  }

  /**
   * Runs a command. Events of before are forgotten.
   * @throws BackupError IO with QEMU's description if it fails
   */
  async execute(command: string, args: Message = {}): Promise<unknown> {
    this.#messages.length = 0
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`)
    const reply = await this.#take((message) => 'return' in message || 'error' in message)
    if ('error' in reply) {
      const { desc } = reply.error as { desc: string }
      throw new BackupError('IO', command, desc)
    }
    return reply.return
  }

  /**
   * Waits for an event that came since the last command was sent, or comes.
   * @returns its data
   */
  async event(wanted: Wanted): Promise<Message> {
    const found = await this.#take(
      ({ event, data }) => event !== undefined && wanted(event as string, data as Message),
    )
    return found.data as Message
  }

  close(): void {
    this.#socket.destroy()
  }

  async #take(fits: (message: Message) => boolean): Promise<Message> {
    for (;;) {
      const index = this.#messages.findIndex(fits)
      if (index >= 0) return this.#messages.splice(index, 1)[0]
      if (this.#socket.destroyed) {
        throw new BackupError('IO', this.#path, 'the monitor closed the connection')
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }
}
