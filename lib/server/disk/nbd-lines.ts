import { log } from '../../log.ts'
import type { NbdConnection } from '../../nbd/connection.ts'
import { DEFAULT_CONNECTIONS } from '../../options.ts'

/** A connection that reads and writes. */
interface Line {
  readonly connection: NbdConnection
  /** Calls that are not answered. */
  pending: number
  /** It has answered once. */
  isProven: boolean
}

/**
 * The connections to an export: the first one alone where the server is for one, else others are made while those
 * that there are have something to do.
 */
export class NbdLines {
  readonly first: NbdConnection
  #lines: Line[]

  constructor(first: NbdConnection) {
    this.first = first
    const others = first.info.multiConn ? DEFAULT_CONNECTIONS - 1 : 0
    const all = [first, ...Array.from({ length: others }, () => first.another([]))]
    this.#lines = all.map((connection, i) => ({ connection, pending: 0, isProven: i === 0 }))
  }

  /**
   * Does something over the connection that has least to do.
   * @throws whatever the call throws
   */
  async use<T>(call: (connection: NbdConnection) => Promise<T>): Promise<T> {
    const line = this.#lines.reduce((least, one) => (one.pending < least.pending ? one : least))
    line.pending++
    try {
      const result = await call(line.connection)
      line.isProven = true
      return result
    } catch (error) {
      // The server may take no more clients: others may be there, too.
      if (line.isProven) throw error
      if (this.#lines.includes(line)) {
        this.#lines = this.#lines.filter((one) => one !== line)
        line.connection.close()
        log('serve', () => `goes on with ${this.#lines.length} connections: ${error}`)
      }
    } finally {
      line.pending--
    }
    return await this.use(call)
  }

  close(): void {
    for (const { connection } of this.#lines) connection.close()
  }
}
