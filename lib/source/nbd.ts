import { argumentError, BackupError } from '../errors.ts'
import type { Extent } from '../extents/extent.ts'
import { alignExtents, mergeExtents } from '../extents/merge.ts'
import { SECTOR_SIZE } from '../format/qcow2/constants.ts'
import { quoted, unsupported } from '../format/qcow2/fields.ts'
import type { NbdHandle } from '../native.ts'
import { NbdConnection, type NbdServer } from '../nbd/connection.ts'
import { exportOf, openServer } from '../nbd/export.ts'
import { roundUp } from '../units.ts'
import type { OpenOptions } from './chain.ts'
import {
  type AskStatus,
  piecesOf,
  type StatusWindow,
  sameRuns,
  statusAnswers,
  statusOfDirty,
} from './nbd-status.ts'
import {
  type Discard,
  extentOf,
  type MarkedPiece,
  type Source,
  type SourceExport,
} from './source.ts'

const ALLOCATION = 'base:allocation'

/**
 * Opens an export of an NBD server for reading.
 * @param uri as `parseNbdUri` takes it
 * @throws BackupError USAGE, IO, BAD_BITMAP if it lacks the bitmap, UNSUPPORTED without libnbd
 */
export async function openNbd(uri: string, options: OpenOptions = {}): Promise<Source> {
  const { bitmap, format } = options
  if (format === 'qcow2') throw argumentError('format', 'an NBD export is a raw disk')
  if (bitmap === '') throw argumentError('bitmap', 'a bitmap has a name')
  const server = await openServer(uri, options)
  if (bitmap === undefined) {
    return NbdSource.open(server, await NbdConnection.open(server, [ALLOCATION]), options)
  }
  // Not made again when lost: what lost it may be the two contexts, see #windows().
  const connection = await NbdConnection.open(server, [ALLOCATION, bitmapContext(bitmap)], 0)
  if (!connection.info.contexts[1]) {
    connection.close()
    const why =
      `does not export bitmap ${quoted(bitmap)}; the server must be told to: block-export-add ` +
      'with bitmaps, or qemu-nbd --bitmap'
    throw new BackupError('BAD_BITMAP', server.shown, why)
  }
  return NbdSource.open(server, connection, options)
}

function bitmapContext(name: string): string {
  return `qemu:dirty-bitmap:${name}`
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
  /** All that the server says, if it was asked for at once. */
  #known: StatusWindow[] | undefined

  private constructor(server: NbdServer, connection: NbdConnection, options: OpenOptions) {
    const { bitmap } = options
    const asked = exportOf(server, connection.info, options)
    this.#server = server
    this.#connection = connection
    this.name = asked.path
    // The guest sees whole sectors, as qemu-img does; what the export lacks of the last is a hole.
    this.size = roundUp(asked.size, SECTOR_SIZE)
    this.files = [{ ...asked, takeConnection: () => this.#takeConnection() }]
    // Whether it is still recording, and its granularity, no server says.
    this.bitmap = bitmap === undefined ? undefined : { name: bitmap, notes: [] }
  }

  /**
   * A server that may take a single client, as qemu-nbd does unless told otherwise, is asked for
   * everything at once: its connection is then free for reading.
   */
  static async open(
    server: NbdServer,
    connection: NbdConnection,
    options: OpenOptions,
  ): Promise<NbdSource> {
    const source = new NbdSource(server, connection, options)
    if (connection.info.multiConn) return source
    try {
      source.#known = []
      for await (const window of source.#windows()) source.#known.push(window)
      return source
    } catch (error) {
      connection.close()
      throw error
    }
  }

  #takeConnection(): NbdHandle | undefined {
    return this.#known && this.#connection.take()
  }

  /** The marks mean something only if it was opened with a bitmap. */
  pieces(): AsyncGenerator<readonly MarkedPiece[]> {
    return this.markedPieces()
  }

  async *markedPieces(): AsyncGenerator<readonly MarkedPiece[]> {
    for await (const window of this.#known ?? this.#windows()) yield* piecesOf(window, 0)
    const [{ size }] = this.files
    if (size < this.size) {
      // Marked dirty: a disk that ends here may have had more to it before.
      yield [{ kind: 'hole', start: size, length: this.size - size, dirty: true }]
    }
  }

  extents({ detectZeroes = false } = {}): AsyncGenerator<Extent> {
    if (detectZeroes) throw argumentError('detectZeroes', 'only goes with files')
    return mergeExtents(alignExtents(extentBatches(this.pieces()), SECTOR_SIZE))
  }

  discarding(granule: number): Discard {
    const { readOnly, canTrim, multiConn, blockMin } = this.#connection.info
    if (readOnly) {
      throw unsupported(this.name, 'is exported read-only, so nothing can be discarded there')
    }
    if (!canTrim) {
      throw unsupported(this.name, 'the server does not discard (QEMU: discard=unmap on the node)')
    }
    if (!multiConn) {
      const why = 'the server takes no second connection (multi-conn), which discarding needs'
      throw unsupported(this.name, why)
    }
    if (granule % blockMin !== 0) {
      throw argumentError('discardAfterCopy', `${granule} is no multiple of ${blockMin}`)
    }
    return (start, length) => this.#connection.trim(start, length)
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
