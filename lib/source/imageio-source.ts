import { createHash } from 'node:crypto'
import { abortedError, argumentError, BackupError } from '../errors.ts'
import type { Extent } from '../extents/extent.ts'
import { alignExtents, mergeExtents } from '../extents/merge.ts'
import { SECTOR_SIZE } from '../format/qcow2/constants.ts'
import { askChecksum } from '../imageio/client/checksum.ts'
import { listExtents } from '../imageio/client/extent-list.ts'
import type { Context, ListedExtent } from '../imageio/client/extent-parser.ts'
import { imageError, Refusal, whyOf } from '../imageio/client/failure.ts'
import { openImage, type ServedImage } from '../imageio/client/image.ts'
import { ImageReads } from '../imageio/client/reads.ts'
import { askSize } from '../imageio/client/size.ts'
import { withTurns } from '../turns.ts'
import { roundUp } from '../units.ts'
import { withProgress } from './look-up-progress.ts'
import {
  type DirtyMapping,
  type Discard,
  type ExtentsOptions,
  extentOf,
  type Source,
  type SourceReader,
} from './source.ts'
import type { OpenOptions } from './source-chain.ts'

/** For the server's list of the whole, no bitmap is needed. */
const NO_EXTENTS =
  'the server does not tell where data is (it is an old one): all of the disk is taken for data'

/**
 * Opens an image of an imageio server for reading.
 * @param url as `parseImageUrl` takes it
 * @param options `bitmap`: any name; the ticket decides which bitmap it is, and the server does not tell
 * @throws BackupError USAGE, IO, BAD_BITMAP if the server is too old to have bitmaps, ABORTED
 */
export async function openImageio(url: string, options: OpenOptions = {}): Promise<Source> {
  const { bitmap, format, requestSize } = options
  if (format === 'qcow2') throw argumentError('format', 'an imageio server hands out a raw disk')
  if (requestSize !== undefined) throw argumentError('requestSize', 'is only for NBD sources')
  const image = await openImage(url, 'read', options)
  if (bitmap !== undefined && !image.abilities.features.has('extents')) {
    await image.close()
    const why = 'the server is too old to know of dirty bitmaps; make a full backup'
    throw new BackupError('BAD_BITMAP', image.address.displayUrl, why)
  }
  return new ImageioSource(image, options)
}

/** The image as a source; see there. */
class ImageioSource implements Source {
  readonly name: string
  readonly format = 'raw'
  readonly size: number
  readonly stores: readonly [SourceReader]
  readonly bitmap: Source['bitmap']
  readonly notes: readonly string[]
  readonly canExtents: boolean
  readonly canDetectZeroes = false
  readonly canDiscard = false
  readonly checksum?: Source['checksum']
  readonly #image: ServedImage
  readonly #signal: AbortSignal | undefined
  /** Aborted when nobody wants extents any more. */
  readonly #stop = new AbortController()
  readonly #context: Context
  /** Why the server will refuse whatever is asked. */
  #refusal: Error | undefined

  constructor(image: ServedImage, { bitmap, signal }: OpenOptions) {
    const { displayUrl, origin, path, socket } = image.address
    const size = image.size!
    this.#image = image
    this.#signal = signal
    this.#context = bitmap === undefined ? 'zero' : 'dirty'
    this.name = displayUrl
    // The guest sees whole sectors; the missing part of the last one is a hole.
    this.size = roundUp(size, SECTOR_SIZE)
    const secret = createHash('sha256').update(path).digest('hex')
    const reads = new ImageReads(image.connections)
    this.stores = [
      {
        kind: 'reader',
        path: displayUrl,
        size,
        identity: `imageio:${socket ?? origin}/${secret}`,
        read: (start, length, signal) => this.#read(reads, start, length, signal),
      },
    ]
    this.bitmap = bitmap === undefined ? undefined : { name: bitmap, notes: [] }
    this.canExtents = image.abilities.features.has('extents')
    this.notes = this.canExtents ? [] : [NO_EXTENTS]
    if (image.abilities.features.has('checksum')) {
      this.checksum = (blockSize) => this.#checksum(blockSize)
    }
  }

  /** The marks mean something only if it was opened with a bitmap. */
  mappings(): AsyncGenerator<readonly DirtyMapping[]> {
    return this.dirtyMappings()
  }

  dirtyMappings(): AsyncGenerator<readonly DirtyMapping[]> {
    return withTurns(this.#mappings(), this.name, this.#signal)
  }

  extents({ detectZeroes = false, onProgress }: ExtentsOptions = {}): AsyncGenerator<Extent> {
    if (detectZeroes) throw argumentError('detectZeroes', 'is only supported for files')
    const batches = withProgress(extentBatches(this.mappings()), this.size, onProgress)
    return mergeExtents(alignExtents(batches, SECTOR_SIZE))
  }

  discarding(): Discard {
    throw argumentError('discardAfterCopy', 'is only supported for NBD exports and custom sources')
  }

  /**
   * Asks the server again. One that does not answer any more, or not for this ticket, has handed out all
   * that was asked of it.
   */
  async checkUnchanged(): Promise<void> {
    const [{ size }] = this.stores
    const { connections, address } = this.#image
    const now = await connections
      .use((connection) => askSize(connection, this.#signal))
      .catch(() => undefined)
    if (this.#signal?.aborted) throw abortedError(this.name, this.#signal)
    if (now === undefined || now === size) return
    const how = now < size ? 'shrank' : 'grew'
    const why = `${how} from ${size} to ${now} bytes while it was read`
    throw new BackupError('SOURCE_CHANGED', address.displayUrl, why)
  }

  interrupt(): void {
    this.#stop.abort(new Error('the source was closed'))
  }

  async close(): Promise<void> {
    this.interrupt()
    await this.#image.close()
  }

  async *#mappings(): AsyncGenerator<readonly DirtyMapping[]> {
    const [{ size }] = this.stores
    if (!this.canExtents) {
      if (size > 0) {
        yield [{ kind: 'data', start: 0, length: size, store: 0, offset: 0, dirty: true }]
      }
    } else if (size > 0) {
      for await (const batch of this.#extents()) yield batch.map(mappingOf)
    }
    if (size < this.size) {
      // Marked dirty: a disk that ends here may have had more to it before.
      yield [{ kind: 'hole', start: size, length: this.size - size, dirty: true }]
    }
  }

  async *#extents(): AsyncGenerator<readonly ListedExtent[]> {
    const signal = AbortSignal.any([this.#stop.signal, ...(this.#signal ? [this.#signal] : [])])
    try {
      yield* listExtents(this.#image, { context: this.#context, signal })
    } catch (error) {
      throw this.#error('cannot read the extents', error)
    }
  }

  async #read(
    reads: ImageReads,
    start: number,
    length: number,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    if (this.#refusal) throw this.#refusal
    try {
      return await reads.read(start, length, signal)
    } catch (error) {
      const { address, timeoutMs } = this.#image
      const failure = new Error(whyOf(error, address.path, timeoutMs), { cause: error })
      // A ticket that is not good any more does not become so again.
      if (error instanceof Refusal && error.status < 500) this.#refusal = failure
      throw failure
    }
  }

  async #checksum(blockSize: number): Promise<string> {
    try {
      return await askChecksum(this.#image, blockSize, this.#signal)
    } catch (error) {
      throw this.#error("cannot get the server's checksum", error)
    }
  }

  #error(doing: string, error: unknown): BackupError {
    if (this.#signal?.aborted) return abortedError(this.name, this.#signal)
    const { address, timeoutMs } = this.#image
    const noBitmap = error instanceof Refusal && error.status === 404 && this.#context === 'dirty'
    if (!noBitmap || doing.includes('checksum')) {
      return imageError(address, doing, error, timeoutMs)
    }
    const why =
      'the ticket gives no dirty bitmap: the transfer must belong to an incremental backup (in oVirt: ' +
      'a backup from a checkpoint, a disk with incremental backup enabled); otherwise make a full backup'
    return new BackupError('BAD_BITMAP', this.name, why, { cause: error })
  }
}

function mappingOf({ start, length, zero, hole, dirty }: ListedExtent): DirtyMapping {
  if (!zero) return { kind: 'data', start, length, store: 0, offset: start, dirty }
  return { kind: hole ? 'hole' : 'zero', start, length, dirty }
}

async function* extentBatches(batches: AsyncIterable<readonly DirtyMapping[]>) {
  for await (const batch of batches) yield batch.map(extentOf)
}
