import { BackupError, isBackupError } from '../../errors.ts'
import type { QmpClient } from '../../qmp/client.ts'
import type { QmpEvents } from '../../qmp/events.ts'
import type { QmpEvent } from '../../qmp/protocol.ts'
import { readName } from './names.ts'
import type { Scratch } from './scratch.ts'

/** Interval between looks at the free space for temporary images. */
const LOOK_MS = 500

/** Job states in which the filter still keeps the point in time. */
const LIVE_STATES = ['created', 'running', 'paused', 'ready', 'standby', 'waiting', 'pending']

/**
 * Watches over a point in time. QEMU tells when a job or an export ends, when a guest's write fails, and
 * when it ends itself; of a snapshot that was broken it tells nothing.
 */
export class Watch {
  readonly #lost = new AbortController()
  readonly #events: QmpEvents
  readonly #title: string
  #timer: NodeJS.Timeout | undefined
  #isShutDown = false
  #isStopped = false

  /**
   * Begins to listen.
   * @param nodes names of nodes to which a guest's device may write
   */
  constructor(client: QmpClient, run: string, title: string, nodes: readonly string[]) {
    this.#title = title
    const own = new Set(nodes)
    this.#events = client.events({
      names: ['JOB_STATUS_CHANGE', 'BLOCK_EXPORT_DELETED', 'BLOCK_IO_ERROR', 'SHUTDOWN'],
      fits: ({ id, 'node-name': node }, event) => {
        if (event === 'SHUTDOWN') return true
        const name = node ?? id
        if (typeof name !== 'string') return false
        return readName(name)?.run === run || (event === 'BLOCK_IO_ERROR' && own.has(name))
      },
    })
  }

  get signal(): AbortSignal {
    return this.#lost.signal
  }

  /** Judges what came since, and what is yet to come. */
  start(scratches: readonly Scratch[]): void {
    void this.#listen()
    this.#timer = setInterval(() => {
      void Promise.all(scratches.map((scratch) => scratch.requireSpace())).catch((error) =>
        this.lose(error),
      )
    }, LOOK_MS)
    this.#timer.unref()
  }

  stop(): void {
    this.#isStopped = true
    clearInterval(this.#timer)
    this.#events.close()
  }

  /** The point in time is lost. */
  lose(reason: unknown): void {
    this.stop()
    if (!this.#lost.signal.aborted) this.#lost.abort(reason)
  }

  async #listen(): Promise<void> {
    try {
      while (!this.#isStopped) {
        const why = this.#judge(await this.#events.next())
        if (why !== undefined) this.#fail(why)
      }
    } catch (error) {
      // Stopped, or the monitor has ended.
      if (this.#isStopped || !isBackupError(error)) return
      this.#fail(error.why, error)
    }
  }

  #fail(found: string, cause?: unknown): void {
    // Exports and jobs end with it.
    const why = this.#isShutDown ? 'the machine was shut down' : found
    this.lose(new BackupError('IO', this.#title, `the point in time is lost: ${why}`, { cause }))
  }

  #judge({ event, data }: QmpEvent): string | undefined {
    if (event === 'SHUTDOWN') this.#isShutDown = true
    if (event === 'BLOCK_EXPORT_DELETED') return `export ${data.id} was removed`
    if (event === 'JOB_STATUS_CHANGE' && !LIVE_STATES.includes(String(data.status))) {
      return `job ${data.id} has ended`
    }
    if (event !== 'BLOCK_IO_ERROR' || data.operation !== 'write') return undefined
    const reason = data.nospace === true ? 'no space left' : (data.reason ?? 'input/output error')
    return `a write of the guest failed (${reason})`
  }
}
