import type { ImageConnection } from './connection.ts'
import type { Connections } from './connections.ts'
import { Broken } from './failure.ts'
import { partOf } from './size.ts'

/**
 * Bytes between two reads that are asked for together: what lies between is received for nothing.
 * Measured, see docs/performance.md.
 */
export const MAX_GAP = 65536
/** Bytes asked for at once. One that fails is asked for again in its parts. */
export const MAX_REQUEST = 8 * 2 ** 20

/** A read that was asked for. */
export interface Read {
  start: number
  length: number
  signal: AbortSignal
  resolve(bytes: Uint8Array): void
  reject(error: unknown): void
}

/**
 * The first reads that one request can get: near-by ones, of all that wait in order.
 * @param most of them
 * @returns how many
 */
export function joinedReads(
  waiting: readonly Pick<Read, 'start' | 'length'>[],
  most: number,
): number {
  const { start } = waiting[0]
  let end = start + waiting[0].length
  let count = 1
  for (; count < Math.min(waiting.length, most); count++) {
    const next = waiting[count]
    if (next.start < end || next.start - end > MAX_GAP) break
    const last = next.start + next.length
    if (last - start > MAX_REQUEST) break
    end = last
  }
  return count
}

/** Reads ranges of an image, those that lie near each other with one request. */
export class ImageReads {
  readonly #connections: Connections
  /** All that the ticket is for, as the server said first; bytes. */
  #total: number | undefined
  /** By `start`. */
  #waiting: Read[] = []
  #isPlanned = false

  constructor(connections: Connections) {
    this.#connections = connections
    connections.onFree = () => this.#pump()
  }

  /**
   * Reads exactly `length` bytes.
   * @throws as ImageConnection.send; Broken for another number of bytes, or if the image is not the same
   */
  read(start: number, length: number, signal: AbortSignal): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason)
      this.#insert({ start, length, signal, resolve, reject })
      if (this.#isPlanned) return
      // Those that are asked for at the same time come first.
      this.#isPlanned = true
      queueMicrotask(() => {
        this.#isPlanned = false
        this.#pump()
      })
    })
  }

  #insert(read: Read): void {
    // Nearly always the last.
    let at = this.#waiting.length
    while (at > 0 && this.#waiting[at - 1].start > read.start) at--
    this.#waiting.splice(at, 0, read)
  }

  #pump(): void {
    this.#waiting = this.#waiting.filter(({ signal, reject }) => {
      if (signal.aborted) reject(signal.reason)
      return !signal.aborted
    })
    while (this.#waiting.length > 0) {
      const share = Math.ceil(this.#waiting.length / Math.max(1, this.#connections.free))
      const connection = this.#connections.take()
      if (!connection) return
      const reads = this.#waiting.splice(0, joinedReads(this.#waiting, share))
      void this.#run(connection, reads)
    }
  }

  async #run(connection: ImageConnection, reads: readonly Read[]): Promise<void> {
    const request = new JoinedRequest(reads, (total) => this.#requireTotal(total))
    await request.send(connection)
    this.#connections.give(connection)
  }

  #requireTotal(total: number | undefined): void {
    this.#total ??= total
    if (total === this.#total) return
    throw new Broken(`the image changed: it has ${total} bytes, and had ${this.#total} before`)
  }
}

/** One request for several reads. Each is done as soon as its bytes are there, the last with the answer. */
class JoinedRequest {
  readonly #reads: readonly Read[]
  readonly #start: number
  readonly #end: number
  readonly #onTotal: (total: number | undefined) => void
  /** The read that is being filled, its buffer, and where the answer is. */
  #index = 0
  #buffer: Buffer | undefined
  #at: number

  constructor(reads: readonly Read[], onTotal: (total: number | undefined) => void) {
    const last = reads[reads.length - 1]
    this.#reads = reads
    this.#start = reads[0].start
    this.#end = last.start + last.length
    this.#at = this.#start
    this.#onTotal = onTotal
  }

  /** Never fails: each read learns for itself. */
  async send(connection: ImageConnection): Promise<void> {
    const cancel = new AbortController()
    const onAbort = () => {
      const wanted = this.#reads.slice(this.#index).find(({ signal }) => !signal.aborted)
      if (!wanted) cancel.abort(new Error('no longer needed'))
    }
    for (const { signal } of this.#reads) signal.addEventListener('abort', onAbort)
    try {
      await connection.send({
        method: 'GET',
        headers: { range: `bytes=${this.#start}-${this.#end - 1}` },
        signal: cancel.signal,
        onHead: (head) => {
          const { start, end, total } = partOf(head)
          const length = head.headers['content-length']
          if (start !== this.#start || end !== this.#end) {
            throw new Broken('the answer is another part than was asked for')
          }
          if (length !== undefined && Number(length) !== end - start) {
            throw new Broken(`the answer has ${length} bytes instead of ${end - start}`)
          }
          this.#onTotal(total)
        },
        onData: (chunk) => this.#take(chunk),
      })
      if (this.#at < this.#end) {
        throw new Broken(`the answer ends after ${this.#at - this.#start} bytes`)
      }
      this.#reads[this.#index].resolve(this.#buffer!)
    } catch (error) {
      for (const read of this.#reads.slice(this.#index)) read.reject(error)
    } finally {
      for (const { signal } of this.#reads) signal.removeEventListener('abort', onAbort)
    }
  }

  #take(chunk: Buffer): void {
    if (chunk.length > this.#end - this.#at) {
      throw new Broken('the answer is longer than was asked for')
    }
    for (let used = 0; used < chunk.length; ) {
      const read = this.#reads[this.#index]
      if (this.#at < read.start) {
        const skipped = Math.min(read.start - this.#at, chunk.length - used)
        used += skipped
        this.#at += skipped
        continue
      }
      this.#buffer ??= Buffer.allocUnsafeSlow(read.length)
      const filled = this.#at - read.start
      const part = Math.min(read.length - filled, chunk.length - used)
      chunk.copy(this.#buffer, filled, used, used + part)
      used += part
      this.#at += part
      // The last one has to wait for the end: an answer that goes on is none.
      if (filled + part < read.length || this.#at === this.#end) continue
      this.#index++
      read.resolve(this.#buffer)
      this.#buffer = undefined
    }
  }
}
