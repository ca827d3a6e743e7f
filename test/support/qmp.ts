import { connect, type Socket } from 'node:net'
import { createInterface } from 'node:readline'

type Message = Record<string, unknown>

interface QmpEvent {
  event: string
  data: Message
}

/** As much of a QMP client as tests need: one command at a time, and waiting for events. */
export class QmpClient {
  readonly #socket: Socket
  readonly #replies: Message[] = []
  readonly #events: QmpEvent[] = []
  #wake = () => {}

  private constructor(socket: Socket) {
    this.#socket = socket
    createInterface({ input: socket }).on('line', (line) => {
      const message = JSON.parse(line)
      if ('event' in message) this.#events.push(message)
      else this.#replies.push(message)
      this.#wake()
    })
    socket.on('close', () => this.#wake())
  }

  /** Connects to a monitor's Unix socket and ends its negotiation. */
  static async connect(path: string): Promise<QmpClient> {
    const socket = connect(path)
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject))
    const client = new QmpClient(socket)
    await client.#next(() => client.#replies.shift())
    await client.execute('qmp_capabilities')
    return client
  }

  /** Runs a command; throws with its description if it fails. */
  async execute(command: string, args: Message = {}): Promise<unknown> {
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`)
    const reply = await this.#next(() => this.#replies.shift())
    if ('error' in reply) {
      const { desc } = reply.error as { desc: string }
      throw new Error(`${command} ${JSON.stringify(args)}: ${desc}`)
    }
    return reply.return
  }

  /** Waits for an event, also one that came before. */
  async event(name: string): Promise<Message> {
    const event = await this.#next(() => {
      const index = this.#events.findIndex((one) => one.event === name)
      return index < 0 ? undefined : this.#events.splice(index, 1)[0]
    })
    return event.data
  }

  close(): void {
    this.#socket.destroy()
  }

  async #next<T>(take: () => T | undefined): Promise<T> {
    for (;;) {
      const item = take()
      if (item !== undefined) return item
      if (this.#socket.destroyed) throw new Error('the monitor closed the connection')
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    }
  }
}
