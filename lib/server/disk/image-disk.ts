import { createHash } from 'node:crypto'
import { BackupError, isBackupError } from '../../errors.ts'
import type { Range } from '../../extents/range-set.ts'
import { statOpen } from '../../files.ts'
import { readBitmaps } from '../../format/qcow2/bitmaps.ts'
import { log } from '../../log.ts'
import { mark } from '../../source/bitmaps/dirty-mappings.ts'
import { splitHoles } from '../../source/holes.ts'
import { readLayers } from '../../source/layer.ts'
import { readContent } from '../../source/read-content.ts'
import type { Mapping } from '../../source/source.ts'
import { type Chain, closeAll, layersOf, openChain } from '../../source/source-chain.ts'
import { listed, quoted } from '../../text.ts'
import { withTurns } from '../../turns.ts'
import { NearMappings } from './near-mappings.ts'
import type { ServedDisk, ServedExtent } from './served-disk.ts'

/** How an image is served. */
export interface ImageOptions {
  allowPaths?: readonly string[]
  format?: 'raw' | 'qcow2'
  /** Tell what its dirty bitmap has: that of this name, or the only one. */
  dirty?: boolean | string
}

const MAX_LISTED = 10

/**
 * Opens an image with its chain, to be read. A bitmap that cannot be used is left out, with a log line.
 * @throws BackupError as openSource
 */
export async function openImageDisk(path: string, options: ImageOptions): Promise<ServedDisk> {
  const { allowPaths, format, dirty = false } = options
  const open = async (bitmap?: string) =>
    new ImageDisk(path, await openChain(path, { allowPaths, format, bitmap }))
  try {
    return await open(dirty === true ? await onlyBitmap(path, options) : dirty || undefined)
  } catch (error) {
    if (!isBackupError(error) || error.code !== 'BAD_BITMAP') throw error
    log('serve', () => `${error.message}; it is served without a bitmap`)
    return await open()
  }
}

/** The name of the only bitmap of an image; undefined if it is one that cannot have any, or has none. */
async function onlyBitmap(path: string, options: ImageOptions): Promise<string | undefined> {
  const { allowPaths, format } = options
  const chain = await openChain(path, { allowPaths, format })
  try {
    const [{ file, header }] = chain.images
    if (!header || header.version < 3) return undefined
    const bitmaps = await readBitmaps(file, header)
    if (bitmaps.length <= 1) return bitmaps[0]?.name
    const names = listed(bitmaps, MAX_LISTED, ({ name }) => quoted(name))
    const why = `has ${bitmaps.length} bitmaps, ${names}; the ticket is to name one`
    throw new BackupError('BAD_BITMAP', path, why)
  } finally {
    await closeAll(chain.files)
  }
}

/** A raw or qcow2 image and all that it builds on, read-only. */
class ImageDisk implements ServedDisk {
  readonly size: number
  readonly etag: string
  readonly unit = 1
  readonly #path: string
  readonly #chain: Chain
  readonly #near: NearMappings

  constructor(path: string, chain: Chain) {
    this.#path = path
    this.#chain = chain
    this.size = chain.layers[0].size
    this.etag = etagOf(chain)
    // Not only where the file has data: its holes are read faster than found.
    this.#near = new NearMappings(this.size, (range) => readLayers(this.#layers(), range))
  }

  get hasDirty(): boolean {
    return this.#chain.bitmap !== undefined
  }

  read(range: Range): AsyncIterable<Buffer> {
    return readContent(this.#near.of(range), this.#chain.files)
  }

  async *extents(context: 'zero' | 'dirty', range: Range): AsyncGenerator<readonly ServedExtent[]> {
    const { bitmap } = this.#chain
    const mappings = this.#mappings(range)
    if (context === 'zero' || !bitmap) {
      for await (const batch of mappings) yield batch.map((one) => extentOf(one, false))
      return
    }
    for await (const batch of mark(mappings, bitmap.runs())) {
      yield batch.map((one) => extentOf(one, one.dirty))
    }
  }

  async close(): Promise<void> {
    await closeAll(this.#chain.files)
  }

  #mappings(range: Range): AsyncGenerator<readonly Mapping[]> {
    return withTurns(splitHoles(readLayers(this.#layers(), range), this.#chain.sparse), this.#path)
  }

  /** New ones for each walk: what they count of an image's claims is of one walk through the guest. */
  #layers() {
    return layersOf(this.#chain.images).layers
  }
}

function extentOf({ kind, start, length }: Mapping, dirty: boolean): ServedExtent {
  return { start, length, zero: kind === 'zero' || kind === 'hole', hole: kind === 'hole', dirty }
}

/** By the files' identities, sizes and times. */
function etagOf({ files }: Chain): string {
  const hash = createHash('sha256')
  for (const { identity, handle } of files) {
    const { size, mtimeNs } = statOpen(handle.fd)
    hash.update(`${identity} ${size} ${mtimeNs}\n`)
  }
  return `"${hash.digest('hex').slice(0, 32)}"`
}
