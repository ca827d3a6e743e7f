import { NbdConnection, type ReachedServer } from './connection.ts'
import type { SourceExport } from './export.ts'

/** Each read keeps a thread of Node's pool busy, of which there are four. */
const MOST_CONNECTIONS = 3

/** Reads any part of an export, several at a time as far as the server takes several connections. */
export class NbdReader {
  readonly #asked: SourceExport
  readonly #server: ReachedServer
  readonly #idle: NbdConnection[] = []
  readonly #waiting: ((connection: NbdConnection) => void)[] = []
  #opened = 0

  constructor(asked: SourceExport) {
    this.#asked = asked
    const { uri, path: shown, timeoutMs } = asked
    this.#server = { uri, shown, timeoutMs }
  }

  /**
   * Reads a range of any alignment.
   * @throws BackupError IO, SOURCE_CHANGED
   */
  async read(start: number, length: number): Promise<Buffer> {
    const { blockMin, size } = this.#asked
    const from = start - (start % blockMin)
    const to = Math.min(Math.ceil((start + length) / blockMin) * blockMin, size)
    const connection = await this.#take()
    try {
      const bytes = await connection.read(from, to - from)
      return bytes.subarray(start - from, start - from + length)
    } finally {
      this.#give(connection)
    }
  }

  /** REQUIRES: nothing is read any more. */
  close(): void {
    for (const connection of this.#idle) connection.close()
  }

  async #take(): Promise<NbdConnection> {
    const idle = this.#idle.pop()
    if (idle) return idle
    const most = Math.min(this.#asked.connections, MOST_CONNECTIONS)
    if (this.#opened >= most) return await new Promise((resolve) => this.#waiting.push(resolve))
    this.#opened++
    try {
      // The server may take no other.
      const handle = this.#asked.takeConnection?.()
      if (handle) return NbdConnection.adopt(this.#server, handle)
      return await NbdConnection.open(this.#server)
    } catch (error) {
      this.#opened--
      throw error
    }
  }

  #give(connection: NbdConnection): void {
    const next = this.#waiting.shift()
    if (next) next(connection)
    else this.#idle.push(connection)
  }
}
