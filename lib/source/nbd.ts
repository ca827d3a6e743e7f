import { BackupError, usageError } from '../errors.ts'
import type { Extent } from '../extents/extent.ts'
import { alignExtents, mergeExtents } from '../extents/merge.ts'
import { SECTOR_SIZE } from '../format/qcow2/constants.ts'
import { quoted, unsupported } from '../format/qcow2/fields.ts'
import { roundUp } from '../units.ts'
import type { OpenOptions } from './chain.ts'
import { NbdConnection, type NbdServer } from './nbd-connection.ts'
import {
  type AskStatus,
  piecesOf,
  type StatusWindow,
  sameRuns,
  statusAnswers,
  statusOfDirty,
} from './nbd-status.ts'
import { requireTrust } from './nbd-tls.ts'
import { parseNbdUri } from './nbd-uri.ts'
import { extentOf, type MarkedPiece, type Source, type SourceExport } from './source.ts'

const ALLOCATION = 'base:allocation'

/** As nbdcopy does, where the server answers several connections as one (multi-conn). */
const DEFAULT_CONNECTIONS = 4
const MAX_CONNECTIONS = 16
/** In flight on each connection. */
const DEFAULT_REQUESTS = 16

/** Long enough for a server that waits for its disk to spin up. */
const DEFAULT_TIMEOUT_MS = 30_000
const MAX_TIMEOUT_MS = 86_400_000

/**
 * Opens an export of an NBD server for reading.
 * @param uri as `parseNbdUri` takes it
 * @throws BackupError USAGE, IO, or UNSUPPORTED if it lacks the bitmap, or if libnbd is missing
 */
export async function openNbd(uri: string, options: OpenOptions = {}): Promise<Source> {
  const { bitmap, timeoutMs = DEFAULT_TIMEOUT_MS } = options
  checkOptions(options)
  const server = { ...parseNbdUri(uri), timeoutMs }
  await requireTrust(server)
  if (bitmap === undefined) {
    return new NbdSource(server, await NbdConnection.open(server, [ALLOCATION]), options)
  }
  // Not made again when lost: what lost it may be the two contexts, see #windows().
  const connection = await NbdConnection.open(server, [ALLOCATION, bitmapContext(bitmap)], 0)
  if (!connection.info.contexts[1]) {
    connection.close()
    const why =
      `does not export bitmap ${quoted(bitmap)}; the server must be told to: block-export-add ` +
      'with bitmaps, or qemu-nbd --bitmap'
    throw unsupported(server.shown, why)
  }
  return new NbdSource(server, connection, options)
}

function bitmapContext(name: string): string {
  return `qemu:dirty-bitmap:${name}`
}

function checkOptions({ format, bitmap, connections, timeoutMs }: OpenOptions): void {
  if (format === 'qcow2') throw usageError('--format', 'an NBD export is a raw disk')
  if (bitmap === '') throw usageError('--bitmap', 'a bitmap has a name')
  inRange('--connections', connections, MAX_CONNECTIONS, `from 1 to ${MAX_CONNECTIONS}`)
  inRange('--timeout', timeoutMs, MAX_TIMEOUT_MS, 'of at most a day')
}

function inRange(option: string, value: number | undefined, max: number, range: string): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= 1 && value <= max)) return
  throw usageError(option, `${value} is not a number ${range}`)
}

/** The export as a source; see there. */
class NbdSource implements Source {
  readonly name: string
  readonly format = 'raw'
  readonly size: number
  readonly files: readonly [SourceExport]
  readonly bitmap: Source['bitmap']
  readonly #server: NbdServer
  readonly #connection: NbdConnection

  constructor(server: NbdServer, connection: NbdConnection, options: OpenOptions) {
    const { size, multiConn, blockMin, blockMax } = connection.info
    const { bitmap, requests = DEFAULT_REQUESTS } = options
    const connections = options.connections ?? (multiConn ? DEFAULT_CONNECTIONS : 1)
    const { shown: path, uri, identity, timeoutMs } = server
    this.#server = server
    this.#connection = connection
    this.name = path
    // The guest sees whole sectors, as qemu-img does; what the export lacks of the last is a hole.
    this.size = roundUp(size, SECTOR_SIZE)
    this.files = [
      { path, uri, size, identity, connections, requests, blockMin, blockMax, timeoutMs },
    ]
    // Whether it is still recording, and its granularity, no server says.
    this.bitmap = bitmap === undefined ? undefined : { name: bitmap, notes: [] }
  }

  /** The marks mean something only if it was opened with a bitmap. */
  pieces(): AsyncGenerator<readonly MarkedPiece[]> {
    return this.markedPieces()
  }

  async *markedPieces(): AsyncGenerator<readonly MarkedPiece[]> {
    const { multiConn } = this.#connection.info
    const windows = multiConn ? this.#windows() : this.#windowsAtOnce()
    for await (const window of windows) yield* piecesOf(window, 0)
    const [{ size }] = this.files
    if (size < this.size) {
      // Marked dirty: a disk that ends here may have had more to it before.
      yield [{ kind: 'hole', start: size, length: this.size - size, dirty: true }]
    }
  }

  extents({ detectZeroes = false } = {}): AsyncGenerator<Extent> {
    if (detectZeroes) throw usageError('--detect-zeroes', 'only goes with files')
    return mergeExtents(alignExtents(extentBatches(this.pieces()), SECTOR_SIZE))
  }

  /**
   * Asks the server anew. One that cannot be reached any more has handed out all that was asked of
   * it; one that serves a single client could not answer.
   */
  async checkUnchanged(): Promise<void> {
    const [{ path, size }] = this.files
    if (!this.#connection.info.multiConn) return
    const now = await NbdConnection.open(this.#server).catch(() => undefined)
    if (!now) return
    now.close()
    if (now.info.size === size) return
    const how = now.info.size < size ? 'shrank' : 'grew'
    const why = `${how} from ${size} to ${now.info.size} bytes while it was read`
    throw new BackupError('SOURCE_CHANGED', path, why)
  }

  async close(): Promise<void> {
    this.#connection.close()
  }

  /**
   * The same for a server that may take a single client, as qemu-nbd does unless told otherwise: all
   * is asked before anything is read, and the connection then makes room for the one that reads.
   */
  async *#windowsAtOnce(): AsyncGenerator<StatusWindow> {
    const windows: StatusWindow[] = []
    for await (const window of this.#windows()) windows.push(window)
    this.#connection.release()
    yield* windows
  }

  /**
   * All that the server says. A snapshot that was limited to a bitmap (copy-before-write with
   * `bitmap`) has no allocation status where it is clean, and QEMU 7.2 answers the two contexts of
   * one request so wrongly then that the connection is lost; so after a failure each context is
   * asked on a connection of its own.
   */
  async *#windows(): AsyncGenerator<StatusWindow> {
    const [asked] = this.files
    let position = 0
    try {
      for await (const window of this.#windowsOfOne()) {
        yield window
        position = window.end
      }
      return
    } catch (error) {
      if (!this.bitmap || !mayDoApart(error)) throw error
    }
    this.#connection.release()
    const [hasAllocation] = this.#connection.info.contexts
    const bitmap = this.#connection.another([bitmapContext(this.bitmap.name)])
    const allocation = this.#connection.another([ALLOCATION])
    try {
      const askAllocation = hasAllocation ? ask(allocation) : undefined
      yield* statusOfDirty(asked, ask(bitmap), askAllocation, position, asked.size)
    } finally {
      bitmap.close()
      allocation.close()
    }
  }

  /** The same by one connection. */
  async *#windowsOfOne(): AsyncGenerator<StatusWindow> {
    const [asked] = this.files
    const { size } = asked
    const [hasAllocation, hasBitmap] = this.#connection.info.contexts
    if (!hasAllocation && !hasBitmap) {
      // A server without structured replies, or that says nothing of holes: all is data.
      const all = sameRuns(size, 0)
      if (size > 0) yield { start: 0, end: size, allocation: all, dirty: all }
      return
    }
    for await (const answer of statusAnswers(asked, ask(this.#connection), 0, size)) {
      const { start, end, contexts } = answer
      const everywhere = sameRuns(end - start, 0)
      const allocation = hasAllocation ? contexts[0] : everywhere
      const dirty = hasBitmap ? contexts[contexts.length - 1] : everywhere
      yield { start, end, allocation, dirty }
    }
  }
}

/** Whether two contexts that failed together may do one by one: not if the server is silent. */
function mayDoApart(error: unknown): boolean {
  return error instanceof BackupError && error.code === 'IO' && error.errno !== 'ETIMEDOUT'
}

/** Of the contexts that the server has, in their order. */
function ask(connection: NbdConnection): AskStatus {
  return async (start, length) => {
    const runs = await connection.status(start, length)
    return runs.filter((_, i) => connection.info.contexts[i])
  }
}

async function* extentBatches(batches: AsyncIterable<readonly MarkedPiece[]>) {
  for await (const batch of batches) yield batch.map(extentOf)
}
