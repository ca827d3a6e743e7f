import { argumentError, BackupError, unsupported } from '../errors.ts'
import type { Extent } from '../extents/extent.ts'
import { alignExtents, mergeExtents } from '../extents/merge.ts'
import { SECTOR_SIZE } from '../format/qcow2/constants.ts'
import type { NbdHandle } from '../native.ts'
import { NbdConnection, type NbdServer } from '../nbd/connection.ts'
import { exportOf, openServer } from '../nbd/export.ts'
import { ExportStatus } from '../nbd/export-status.ts'
import { KnownStatus } from '../nbd/known-status.ts'
import { quoted } from '../text.ts'
import { roundUp } from '../units.ts'
import { withProgress } from './look-up-progress.ts'
import { mappingsOf } from './nbd-mappings.ts'
import {
  type DirtyMapping,
  type Discard,
  type ExtentsOptions,
  extentOf,
  type Source,
  type SourceExport,
} from './source.ts'
import type { KnowingOptions, OpenOptions } from './source-chain.ts'

/**
 * Opens an export of an NBD server for reading.
 * @param uri as `parseNbdUri` takes it
 * @throws BackupError USAGE, IO, BAD_BITMAP if it lacks the bitmap, UNSUPPORTED without libnbd or
 * if its disk is split too finely, ABORTED
 */
export async function openNbd(uri: string, options: KnowingOptions = {}): Promise<Source> {
  const { bitmap, format } = options
  if (format === 'qcow2') throw argumentError('format', 'an NBD export is a raw disk')
  if (bitmap === '') throw argumentError('bitmap', 'the name is empty')
  const server = await openServer(uri, options)
  const allocation = options.requestSize === undefined || options.doubtsHoles === true
  const status = await ExportStatus.open(server, bitmap, { allocation })
  if (!status) {
    const why =
      `does not export bitmap ${quoted(bitmap ?? '')}; the server must be told to: ` +
      'block-export-add with bitmaps, or qemu-nbd --bitmap'
    throw new BackupError('BAD_BITMAP', server.displayUri, why)
  }
  try {
    return new NbdSource(server, status, options, await askAtOnce(server, status))
  } catch (error) {
    status.close()
    throw error
  }
}

/**
 * A server that may take a single client, as qemu-nbd does by default, is asked for
 * everything at once: its connection is then free for reading.
 */
async function askAtOnce(
  server: NbdServer,
  status: ExportStatus,
): Promise<KnownStatus | undefined> {
  if (status.connection.info.multiConn) return undefined
  const known = new KnownStatus(server.displayUri)
  for await (const window of status.windows()) known.add(window)
  return known
}

/** The export as a source; see there. */
class NbdSource implements Source {
  readonly name: string
  readonly format = 'raw'
  readonly size: number
  readonly stores: readonly [SourceExport]
  readonly bitmap: Source['bitmap']
  readonly canExtents: boolean
  readonly canDetectZeroes = false
  readonly canDiscard: boolean
  readonly #server: NbdServer
  readonly #status: ExportStatus
  readonly #connection: NbdConnection
  readonly #known: KnownStatus | undefined
  #trims: NbdConnection | undefined

  /** @param known all that the server says, if its connection is to be read over */
  constructor(
    server: NbdServer,
    status: ExportStatus,
    options: OpenOptions,
    known: KnownStatus | undefined,
  ) {
    const { bitmap } = options
    const asked = exportOf(server, status.connection.info, options)
    this.#server = server
    this.#status = status
    this.#connection = status.connection
    this.#known = known
    this.name = asked.path
    // The guest sees whole sectors, as in qemu-img; the missing part of the last one is a hole.
    this.size = roundUp(asked.size, SECTOR_SIZE)
    this.stores = [{ ...asked, takeConnection: () => this.#takeConnection() }]
    const { readOnly, canTrim, multiConn } = this.#connection.info
    this.canExtents = status.hasAllocation
    this.canDiscard = !readOnly && canTrim && multiConn
    // Whether it is still recording, and its granularity, no server says.
    this.bitmap = bitmap === undefined ? undefined : { name: bitmap, notes: [] }
  }

  get notes(): readonly string[] {
    return this.#status.notes
  }

  #takeConnection(): NbdHandle | undefined {
    return this.#known && this.#connection.take()
  }

  /** The marks mean something only if it was opened with a bitmap. */
  mappings(): AsyncGenerator<readonly DirtyMapping[]> {
    return this.dirtyMappings()
  }

  async *dirtyMappings(): AsyncGenerator<readonly DirtyMapping[]> {
    const windows = this.#known?.windows() ?? this.#status.windows()
    for await (const window of windows) yield* mappingsOf(window, 0)
    const [{ size }] = this.stores
    if (size < this.size) {
      // Marked dirty: a disk that ends here may have had more to it before.
      yield [{ kind: 'hole', start: size, length: this.size - size, dirty: true }]
    }
  }

  extents({ detectZeroes = false, onProgress }: ExtentsOptions = {}): AsyncGenerator<Extent> {
    if (detectZeroes) throw argumentError('detectZeroes', 'is only supported for files')
    const batches = withProgress(extentBatches(this.mappings()), this.size, onProgress)
    return mergeExtents(alignExtents(batches, SECTOR_SIZE))
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
      const why =
        'the server does not support several connections (multi-conn), which discarding needs'
      throw unsupported(this.name, why)
    }
    if (granule % blockMin !== 0) {
      throw argumentError(
        'discardAfterCopy',
        `${granule} is not a multiple of ${blockMin}, the server's minimum block size`,
      )
    }
    // On a connection of its own, so that neither waits for the other.
    this.#trims ??= this.#connection.another([])
    const trims = this.#trims
    // The disk may end in part of a sector.
    const [{ size }] = this.stores
    return async (ranges) => {
      await trims.trim(
        ranges.map(({ start, length }) => ({ start, length: Math.min(length, size - start) })),
      )
    }
  }

  /**
   * Asks the server again. One that cannot be reached any more has handed out all that was asked of
   * it; one that serves a single client could not answer.
   */
  async checkUnchanged(): Promise<void> {
    const [{ path, size, fingerprint }] = this.stores
    if (!this.#connection.info.multiConn) return
    const now = await NbdConnection.open(this.#server).catch((error) => {
      if (this.#server.signal?.aborted) throw error
    })
    if (!now) return
    now.close()
    if (now.info.fingerprint === fingerprint) return
    if (now.info.size === size) {
      const why = 'is no longer the export that was read'
      throw new BackupError('SOURCE_CHANGED', path, why)
    }
    const how = now.info.size < size ? 'shrank' : 'grew'
    const why = `${how} from ${size} to ${now.info.size} bytes while it was read`
    throw new BackupError('SOURCE_CHANGED', path, why)
  }

  interrupt(): void {
    this.#status.close()
  }

  async close(): Promise<void> {
    this.#trims?.close()
    this.#status.close()
  }
}

async function* extentBatches(batches: AsyncIterable<readonly DirtyMapping[]>) {
  for await (const batch of batches) yield batch.map(extentOf)
}
