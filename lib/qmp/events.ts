import { BackupError } from '../errors.ts'
import type { QmpEvent, QmpObject } from './protocol.ts'
import { startTimer, type WaitOptions } from './wait.ts'

/** Maximum events queued until they are taken. */
export const MAX_QUEUED = 4096

/** Maximum characters of the messages that they came in. */
export const MAX_QUEUED_LENGTH = 32 * 2 ** 20

/** Which events are wanted: of these names (undefined: all), and fitting by their data. */
export interface EventFilter {
  names?: readonly string[]
  fits?: (data: QmpObject, event: string) => boolean
}

/**
 * The events of a connection that fit a filter, from the time on that the queue was made: make it
 * before the command whose events it is for. Nothing is lost without a word: a queue that nobody
 * empties fails.
 */
export class QmpEvents {
  readonly #monitor: string
  readonly #filter: EventFilter
  readonly #leave: () => void
  #queued: { event: QmpEvent; length: number }[] = []
  /** Of the messages that the queued events came in, characters. */
  #length = 0
  #waiting: (() => void)[] = []
  #failure: BackupError | undefined

  /**
   * @param monitor as messages name the connection
   * @param leave called when the queue is closed
   */
  constructor(monitor: string, filter: EventFilter, leave: () => void) {
    this.#monitor = monitor
    this.#filter = filter
    this.#leave = leave
  }

  /**
   * Offers an event that came.
   * @param length of its message, characters
   */
  offer(event: QmpEvent, length: number): void {
    const { names, fits } = this.#filter
    if (this.#failure || (names && !names.includes(event.event))) return
    if (fits && !fits(event.data, event.event)) return
    if (this.#queued.length >= MAX_QUEUED || this.#length + length > MAX_QUEUED_LENGTH) {
      const why = `sent more than ${this.#queued.length} events that nobody waited for`
      this.drain()
      this.fail(new BackupError('IO', this.#monitor, why))
      return
    }
    this.#queued.push({ event, length })
    this.#length += length
    this.#wake()
  }

  /** No more will come; queued events can still be taken. */
  fail(failure: BackupError): void {
    this.#failure ??= failure
    this.#wake()
  }

  /** All events queued now. */
  drain(): QmpEvent[] {
    const events = this.#queued.map(({ event }) => event)
    this.#queued = []
    this.#length = 0
    return events
  }

  /**
   * The next event, one that is queued already or that is yet to come.
   * @throws BackupError IO when the connection ends or the time is over, ABORTED
   */
  async next({ timeoutMs, signal }: WaitOptions = {}): Promise<QmpEvent> {
    const over = timeoutMs === undefined ? undefined : performance.now() + timeoutMs
    for (;;) {
      if (signal?.aborted) {
        throw new BackupError('ABORTED', this.#monitor, 'interrupted', { cause: signal.reason })
      }
      const first = this.#queued.shift()
      if (first) {
        this.#length -= first.length
        return first.event
      }
      if (this.#failure) throw this.#failure
      const left = over === undefined ? undefined : over - performance.now()
      if (left !== undefined && left <= 0) {
        const names = this.#filter.names?.join(' or ') ?? 'any event'
        const why = `no ${names} within ${(timeoutMs ?? 0) / 1000} s`
        throw new BackupError('IO', this.#monitor, why, { errno: 'ETIMEDOUT' })
      }
      await this.#change(left, signal)
    }
  }

  /** Takes in no more events. */
  close(): void {
    this.#leave()
    this.fail(new BackupError('IO', this.#monitor, 'the queue of events is closed'))
  }

  async #change(timeoutMs: number | undefined, signal?: AbortSignal): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    let wake = () => {}
    await new Promise<void>((resolve) => {
      wake = resolve
      this.#waiting.push(wake)
      signal?.addEventListener('abort', wake)
      if (timeoutMs !== undefined) timer = startTimer(timeoutMs, wake)
    })
    clearTimeout(timer)
    signal?.removeEventListener('abort', wake)
    this.#waiting = this.#waiting.filter((one) => one !== wake)
  }

  #wake(): void {
    for (const wake of this.#waiting) wake()
  }
}
