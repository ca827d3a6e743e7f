import { setTimeout as delay } from 'node:timers/promises'
import { log } from '../../log.ts'
import type { ImageConnection, ImageRequest } from './connection.ts'
import { isPassing } from './failure.ts'
import type { ServedImage } from './image.ts'

/** Servers and the storage behind them lose patience with more than this at once, bytes. */
export const MAX_ZERO = 128 * 2 ** 20
/** As often sent again in a row, after waits that double. */
const RETRIES = 5
const FIRST_WAIT_MS = 100

/** Writes an image, over several connections. */
export class ImageWrites {
  readonly #image: ServedImage
  readonly #canFlush: boolean
  /** Connections over which something was written since they were flushed. */
  readonly #unflushed = new Set<ImageConnection>()
  /** Whether the server zeroes by itself. */
  readonly canZero: boolean

  constructor(image: ServedImage) {
    const { features } = image.abilities
    this.#image = image
    this.#canFlush = features.has('flush')
    this.canZero = features.has('zero') && this.#canFlush
  }

  /** Writes bytes at an offset. @throws as ImageConnection.send */
  async write(offset: number, bytes: Uint8Array, signal: AbortSignal): Promise<void> {
    await this.#send(`${bytes.length} bytes at ${offset}`, {
      method: 'PUT',
      // Servers that cannot be told to flush do it each time.
      target: this.#canFlush ? '?flush=n' : '',
      headers: {
        'content-type': 'application/octet-stream',
        'content-range': `bytes ${offset}-${offset + bytes.length - 1}/*`,
      },
      body: bytes,
      signal,
    })
  }

  /** Makes a range read as zero. @throws as ImageConnection.send */
  async zero(offset: number, length: number, signal: AbortSignal): Promise<void> {
    for (let at = offset; at < offset + length; at += MAX_ZERO) {
      const size = Math.min(MAX_ZERO, offset + length - at)
      await this.#send(`${size} bytes of zeroes at ${at}`, {
        ...patch({ op: 'zero', offset: at, size, flush: false }),
        signal,
      })
    }
  }

  /** Makes all that was written durable. REQUIRES: nothing is being written */
  async flush(signal: AbortSignal): Promise<void> {
    if (!this.#canFlush) return
    const request: ImageRequest = { ...patch({ op: 'flush' }), signal }
    // For the server each connection is one of its own to the disk.
    for (const connection of [...this.#unflushed]) {
      await this.#again('the flush', signal, async () => {
        await connection.send(request)
        this.#unflushed.delete(connection)
      })
    }
  }

  async #send(what: string, request: ImageRequest & { signal: AbortSignal }): Promise<void> {
    await this.#again(what, request.signal, () =>
      this.#image.connections.use(async (connection) => {
        this.#unflushed.add(connection)
        await connection.send(request)
      }),
    )
  }

  /** Does what has the same effect again, and may succeed. */
  async #again(what: string, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
    for (let tries = 0; ; tries++) {
      try {
        return await work()
      } catch (error) {
        if (signal.aborted || !isPassing(error) || tries >= RETRIES) throw error
        log('imageio', () => {
          const { displayUrl } = this.#image.address
          return `${displayUrl}: ${what} not written: again, ${tries + 1} of ${RETRIES} times`
        })
        await delay(FIRST_WAIT_MS * 2 ** tries, undefined, { signal })
      }
    }
  }
}

function patch(body: object): Pick<ImageRequest, 'method' | 'headers' | 'body'> {
  const headers = { 'content-type': 'application/json' }
  return { method: 'PATCH', headers, body: JSON.stringify(body) }
}
