import { Readable } from 'node:stream'
import { BackupError } from '../errors.ts'

/** Bytes that wait for the consumer before nothing more is read: a few writes of a copy. */
const HIGH_WATER = 4 * 2 ** 20

/**
 * A stream that is written to, with back-pressure. What was written last is kept back until `end`, so that a
 * stream that fails at its end is not complete.
 */
export class Outlet {
  readonly stream: Readable
  /** Aborted when the consumer has destroyed the stream. */
  readonly signal: AbortSignal
  /** Bytes written so far. */
  bytes = 0
  readonly #left = new AbortController()
  #wake: (() => void) | undefined
  #last: Uint8Array | undefined

  /** @param what name for messages */
  constructor(what: string) {
    this.signal = this.#left.signal
    this.stream = new Readable({
      highWaterMark: HIGH_WATER,
      read: () => this.#wake?.(),
      destroy: (error, done) => {
        this.#left.abort(
          error ?? new BackupError('IO', what, 'the stream was closed by its reader'),
        )
        this.#wake?.()
        done(error)
      },
    })
  }

  /**
   * Resolves when the consumer wants more.
   * @param bytes of which the consumer becomes the owner
   * @throws the reason of `signal`
   */
  async write(bytes: Uint8Array): Promise<void> {
    this.signal.throwIfAborted()
    if (bytes.length === 0) return
    this.bytes += bytes.length
    const next = this.#last
    this.#last = bytes
    if (next) await this.#push(next)
  }

  /** Everything was written, and is right. */
  async end(): Promise<void> {
    this.signal.throwIfAborted()
    if (this.#last) await this.#push(this.#last)
    this.#last = undefined
    this.stream.push(null)
  }

  async #push(bytes: Uint8Array): Promise<void> {
    if (this.stream.push(bytes)) return
    await new Promise<void>((resolve) => {
      this.#wake = resolve
    })
    this.#wake = undefined
    this.signal.throwIfAborted()
  }
}
