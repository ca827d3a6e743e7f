import { BackupError } from '../errors.ts'
import { Advance } from '../extents/advance.ts'
import { coveredBytes, type StatusRuns } from '../extents/intersect.ts'
import {
  type AskStatus,
  type StatusWindow,
  sameRuns,
  statusAnswers,
  statusOfDirty,
} from './block-status.ts'
import { Closed, isRefusedStatus, NbdConnection, type NbdServer } from './connection.ts'

const ALLOCATION = 'base:allocation'

/** Bytes counted as data when a server refuses block status: those of the refused request. */
const REFUSED_BYTES = 2 ** 31
/** Refusals of allocation status after which the server is not asked again. */
const MAX_REFUSALS = 8

function bitmapContext(name: string): string {
  return `qemu:dirty-bitmap:${name}`
}

/**
 * Block status of an export: its allocation, and a dirty bitmap if requested. Allocation only saves
 * work, so where the server does not report it all is data, and `notes` say so; the bitmap decides
 * the result, so where that is not reported it is an error.
 */
export class ExportStatus {
  readonly connection: NbdConnection
  /** Whether the server is asked where data is. */
  readonly hasAllocation: boolean
  /** Caveats about the answers. */
  readonly notes: string[] = []
  readonly #server: NbdServer
  readonly #stop: AbortController
  readonly #bitmap: string | undefined
  #refusals = 0

  private constructor(
    server: NbdServer,
    stop: AbortController,
    connection: NbdConnection,
    bitmap?: string,
    allocation = true,
  ) {
    this.hasAllocation = allocation && connection.info.contexts[0]
    this.#server = server
    this.#stop = stop
    this.connection = connection
    this.#bitmap = bitmap
  }

  /**
   * Connects, and negotiates the metadata contexts.
   * @param options.allocation whether base:allocation is asked for, default true; else all is data
   * @returns undefined if the export has no such bitmap
   * @throws BackupError IO, ABORTED, or UNSUPPORTED without libnbd
   */
  static async open(
    reached: NbdServer,
    bitmap?: string,
    { allocation = true }: { allocation?: boolean } = {},
  ): Promise<ExportStatus | undefined> {
    const stop = new AbortController()
    const { signal = stop.signal } = reached
    const server = { ...reached, signal: AbortSignal.any([signal, stop.signal]) }
    const contexts = allocation ? [ALLOCATION] : []
    if (bitmap === undefined) {
      const connection = await NbdConnection.open(server, contexts)
      return new ExportStatus(server, stop, connection, undefined, allocation)
    }
    // Not reconnected: asking for two contexts may be the cause, see windows().
    const connection = await NbdConnection.open(server, [...contexts, bitmapContext(bitmap)], 0)
    if (connection.info.contexts.at(-1)) {
      return new ExportStatus(server, stop, connection, bitmap, allocation)
    }
    connection.close()
    return undefined
  }

  /** Cancels all requests, for good, and disconnects. */
  close(): void {
    this.#stop.abort(new Closed())
  }

  /**
   * All that the server says, from 0 to the size of the export; asked as it is used. A snapshot that
   * was limited to a bitmap (copy-before-write with `bitmap`) has no allocation status where it is
   * clean, and QEMU 7.2 answers the two contexts of one request so wrongly then that the connection
   * is lost; so after a failure each context is asked on a connection of its own.
   * @throws BackupError IO, SOURCE_CHANGED, ABORTED
   */
  async *windows(): AsyncGenerator<StatusWindow> {
    const { size } = this.connection.info
    if (this.#bitmap === undefined) {
      yield* this.#allocationOnly(size)
      return
    }
    let position = 0
    try {
      for await (const window of this.#bothAtOnce(size)) {
        yield window
        position = window.end
      }
    } catch (error) {
      if (!mayDoApart(error)) throw error
      this.connection.release()
      yield* this.#oneByOne(this.#bitmap, position, size)
    }
  }

  async *#allocationOnly(size: number): AsyncGenerator<StatusWindow> {
    const ask = this.hasAllocation ? this.#allocationOrData(this.connection) : allData
    for await (const { start, end, contexts } of statusAnswers(this.#asked, ask, 0, size)) {
      yield { start, end, allocation: contexts[0], dirty: sameRuns(end - start, 0) }
    }
  }

  async *#bothAtOnce(size: number): AsyncGenerator<StatusWindow> {
    const ask = this.#advancing(this.connection)
    for await (const { start, end, contexts } of statusAnswers(this.#asked, ask, 0, size)) {
      const allocation = this.hasAllocation ? contexts[0] : sameRuns(end - start, 0)
      yield { start, end, allocation, dirty: contexts[contexts.length - 1] }
    }
  }

  async *#oneByOne(name: string, from: number, to: number): AsyncGenerator<StatusWindow> {
    const bitmap = this.connection.another([bitmapContext(name)])
    const allocation = this.connection.another([ALLOCATION])
    try {
      const askAllocation = this.hasAllocation ? this.#allocationOrData(allocation) : undefined
      yield* statusOfDirty(this.#asked, this.#advancing(bitmap), askAllocation, from, to)
    } finally {
      bitmap.close()
      allocation.close()
    }
  }

  get #asked() {
    return { path: this.#server.displayUri, blockMin: this.connection.info.blockMin }
  }

  /** Asks a connection for all its contexts, unless that gets nowhere. */
  #advancing(connection: NbdConnection): AskStatus {
    const advance = new Advance(this.#server.timeoutMs)
    return async (start, length) => {
      const contexts = await statusOf(connection, start, length)
      if (!advances(advance, contexts, length)) {
        const why = `its dirty bitmap makes almost no progress at ${start}`
        throw new BackupError('IO', this.#server.displayUri, why)
      }
      return contexts
    }
  }

  /** Asks a connection for base:allocation; where that is refused, or gets nowhere, all is data. */
  #allocationOrData(connection: NbdConnection): AskStatus {
    const advance = new Advance(this.#server.timeoutMs)
    return async (start, length) => {
      if (this.#refusals >= MAX_REFUSALS) return allData(start, length)
      try {
        const contexts = await statusOf(connection, start, length)
        if (!advances(advance, contexts, length)) {
          this.#refusals = MAX_REFUSALS
          this.#note(start, 'its answers make almost no progress')
        }
        return contexts
      } catch (error) {
        if (!isRefusedStatus(error)) throw error
        this.#refusals++
        this.#note(start, (error as BackupError).why)
        return allData(start, Math.min(length, REFUSED_BYTES))
      }
    }
  }

  /** Noted once: the loss is the same each time. */
  #note(start: number, why: string): void {
    if (this.notes.length > 0) return
    this.notes.push(
      `the server does not tell where data is (${why}): from byte ${start} on what it does not ` +
        'tell of is taken for data',
    )
  }
}

/** Of the contexts that the server has, in their order. */
async function statusOf(
  connection: NbdConnection,
  start: number,
  length: number,
): Promise<StatusRuns[]> {
  const runs = await connection.status(start, length)
  return runs.filter((_, i) => connection.info.contexts[i])
}

async function allData(_start: number, length: number): Promise<StatusRuns[]> {
  return [sameRuns(length, 0)]
}

function advances(advance: Advance, contexts: readonly StatusRuns[], length: number): boolean {
  const bytes = Math.min(...contexts.map(coveredBytes))
  const runs = Math.min(...contexts.map((runs) => runs.length / 2))
  return bytes >= length || advance.add(bytes, runs)
}

/** Whether two contexts that failed together may do one by one: not if the server is silent. */
function mayDoApart(error: unknown): boolean {
  return error instanceof BackupError && error.code === 'IO' && error.errno !== 'ETIMEDOUT'
}
