import { Client, type Dispatcher } from 'undici'
import { Broken, type Head, Refusal } from './failure.ts'
import type { Connect } from './trust.ts'

/** Idle connections are given up before a server that waits a minute does it. */
const IDLE_MS = 30_000
/** A server's explanation of a refusal is read up to here, bytes. */
const MAX_EXPLANATION = 65536
/** An answer must get on: this much in the time that the server may be silent, bytes. */
const MIN_PROGRESS = 262_144

/** A request about the image. */
export interface ImageRequest {
  method: 'GET' | 'OPTIONS' | 'PUT' | 'PATCH'
  /** What follows the image's path. */
  target?: string
  headers?: Record<string, string>
  body?: Uint8Array | string
  /** How long the server may take to answer. Default: as for everything. */
  patienceMs?: number
  /** The answer may come as slowly as it likes, as long as it comes. */
  slow?: boolean
  signal?: AbortSignal
  /** Takes the head of an answer with a status of 200 to 299. What it throws ends the request. */
  onHead?(head: Head): void
  /** Takes the body of such an answer, piece by piece. */
  onData?(chunk: Buffer): void
}

/** One keep-alive connection to a server, made when it is needed. One request at a time. */
export class ImageConnection {
  readonly #client: Client
  readonly #path: string
  readonly #timeoutMs: number

  /** @param path of the image */
  constructor(origin: string, path: string, connect: Connect, timeoutMs: number) {
    this.#path = path
    this.#timeoutMs = timeoutMs
    this.#client = new Client(origin, {
      connect,
      pipelining: 1,
      keepAliveTimeout: IDLE_MS,
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
    })
  }

  /**
   * Sends a request. Redirects are refusals.
   * @throws Refusal for another status than 200 to 299; Broken; whatever `onHead` and `onData` throw, the
   * errors of undici, and the signal's reason
   */
  send({ target = '', onHead, onData, signal, ...request }: ImageRequest): Promise<Head> {
    return new Promise<Head>((resolve, reject) => {
      const { method, headers, body, patienceMs = this.#timeoutMs, slow = false } = request
      let control: Dispatcher.DispatchController | undefined
      let head: Head | undefined
      let refused: Buffer[] | undefined
      const progress = { since: performance.now(), bytes: 0 }
      let bytes = 0
      const fail = (error: Error) => {
        signal?.removeEventListener('abort', onAbort)
        reject(error)
        control?.abort(error)
      }
      const onAbort = () => fail(signal!.reason)
      /** Does something of which an exception ends the request. */
      const guarded = (work: () => void) => {
        try {
          work()
        } catch (error) {
          fail(error as Error)
        }
      }
      if (signal?.aborted) return reject(signal.reason)
      signal?.addEventListener('abort', onAbort)
      this.#client.dispatch(
        {
          method,
          path: this.#path + target,
          headers: { 'accept-encoding': 'identity', ...headers },
          body,
          headersTimeout: patienceMs,
          bodyTimeout: slow ? patienceMs : this.#timeoutMs,
        },
        {
          onRequestStart: (controller) => {
            control = controller
            if (signal?.aborted) controller.abort(signal.reason)
          },
          onResponseStart: (_, status, headers) => {
            if (status < 200) return
            head = { status, headers }
            if (status >= 300) refused = []
            else
              guarded(() => {
                requirePlain(head!)
                onHead?.(head!)
              })
          },
          onResponseData: (_, chunk) => {
            bytes += chunk.length
            if (refused) {
              refused.push(chunk)
              if (bytes > MAX_EXPLANATION) fail(refusalOf(head!, refused))
              return
            }
            guarded(() => {
              if (!slow) requireProgress(progress, chunk.length, this.#timeoutMs)
              onData?.(chunk)
            })
          },
          onResponseEnd: () => {
            signal?.removeEventListener('abort', onAbort)
            if (refused) reject(refusalOf(head!, refused))
            else resolve(head!)
          },
          onResponseError: (_, error) => {
            signal?.removeEventListener('abort', onAbort)
            // The head says more than that the rest does not come.
            reject(refused ? refusalOf(head!, refused) : error)
          },
        },
      )
    })
  }

  /** Ends the requests under way, too. Never fails. */
  async close(): Promise<void> {
    await this.#client.destroy().catch(() => {})
  }
}

function refusalOf(head: Head, body: readonly Buffer[]): Refusal {
  return new Refusal(head, Buffer.concat(body).subarray(0, MAX_EXPLANATION).toString('utf8'))
}

/** Bytes that are encoded would be taken for those of the disk. */
function requirePlain({ headers }: Head): void {
  const encoding = headers['content-encoding'] ?? 'identity'
  if (encoding !== 'identity') throw new Broken('the server encodes its answer unasked')
}

/** A server that sends a byte now and then is never silent. */
function requireProgress(
  progress: { since: number; bytes: number },
  bytes: number,
  timeoutMs: number,
): void {
  progress.bytes += bytes
  const now = performance.now()
  if (now - progress.since < timeoutMs) return
  if (progress.bytes < MIN_PROGRESS) {
    throw new Error(`only ${progress.bytes} bytes of the answer came in ${timeoutMs / 1000} s`)
  }
  progress.since = now
  progress.bytes = 0
}
