import { argumentError, type BackupError } from '../errors.ts'
import type { Extent } from '../extents/extent.ts'
import { alignExtents, mergeExtents } from '../extents/merge.ts'
import { requireUnchanged } from '../image/file.ts'
import { requireSnapshot } from '../image/internal-snapshot.ts'
import { isImageUrl } from '../imageio/client/address.ts'
import { isNbdUri } from '../nbd/uri.ts'
import { withTurns } from '../turns.ts'
import { mark } from './bitmaps/dirty-mappings.ts'
import { type CustomSource, openCustom } from './custom-source.ts'
import { splitHoles } from './holes.ts'
import { readLayers } from './layer.ts'
import { withProgress } from './look-up-progress.ts'
import { openNbd } from './nbd-source.ts'
import { extentOf, type Mapping, type Source } from './source.ts'
import { type Chain, closeAll, type KnowingOptions, openChain } from './source-chain.ts'
import { detectZeroes } from './zeroes.ts'

export type { Format, OpenOptions } from './source-chain.ts'

/** Disks are accounted in sectors. */
const SECTOR = 512

/**
 * Opens a disk for reading: a raw or qcow2 image, in a file or on a block device, with all that it
 * builds on, an export of an NBD server, an image of an imageio server, or a custom source.
 * @param location a path, an NBD URI, the URL of an image, or a source of the program's own
 * @throws BackupError USAGE, BAD_IMAGE, BAD_BITMAP, UNSUPPORTED, NOT_ALLOWED (by the gate),
 * IN_USE or IO
 */
export async function openSource(
  location: string | CustomSource,
  options: KnowingOptions = {},
): Promise<Source> {
  const isImage = typeof location === 'string' && !isNbdUri(location) && !isImageUrl(location)
  if (options.snapshot !== undefined && !isImage) {
    throw argumentError('snapshot', 'only a qcow2 image has internal snapshots')
  }
  if (typeof location === 'string' && isImageUrl(location)) {
    // With an HTTP client, which other sources need not wait for.
    const { openImageio } = await import('./imageio-source.ts')
    return await openImageio(location, options)
  }
  for (const option of ['ca', 'fingerprint', 'insecure'] as const) {
    if (options[option] === undefined) continue
    throw argumentError(option, 'is only supported for imageio sources, https://…')
  }
  if (typeof location !== 'string') return openCustom(location, options)
  if (isNbdUri(location)) return await openNbd(location, options)
  const { connections, timeoutMs, requestSize } = options
  if (connections !== undefined) throw onlyRemote('connections')
  if (timeoutMs !== undefined) throw onlyRemote('timeoutMs')
  if (requestSize !== undefined) {
    throw argumentError('requestSize', 'is only supported for NBD sources')
  }
  return sourceOf(location, await openChain(location, options), options.signal)
}

function onlyRemote(option: string): BackupError {
  return argumentError(option, 'is only supported for NBD and imageio sources')
}

function sourceOf(name: string, chain: Chain, signal?: AbortSignal): Source {
  const { format, layers, images, files, sparse, bitmap, notes } = chain
  const { snapshot } = images[0]
  const mappings = () => withTurns(splitHoles(readLayers(layers), sparse), name, signal)
  return {
    name,
    format,
    size: layers[0].size,
    images,
    snapshot: snapshot && { id: snapshot.id, name: snapshot.name },
    stores: files,
    canExtents: true,
    canDetectZeroes: true,
    canDiscard: false,
    bitmap,
    notes,
    mappings,
    dirtyMappings() {
      if (!bitmap) throw argumentError('bitmap', `${name} was opened without one`)
      return mark(mappings(), bitmap.runs())
    },
    extents({ detectZeroes: read = false, onProgress } = {}) {
      const batches = read ? detectZeroes(files, mappings()) : extentBatches(mappings())
      const told = withProgress(batches, layers[0].size, onProgress)
      return mergeExtents(alignExtents(told, SECTOR))
    },
    discarding() {
      const why = 'is only supported for NBD exports and custom sources'
      throw argumentError('discardAfterCopy', why)
    },
    async checkUnchanged() {
      if (!snapshot) return await requireUnchanged(files)
      // Growth of the file after the snapshot makes no difference.
      await requireUnchanged(files.slice(1))
      await requireSnapshot(images[0].file, snapshot)
    },
    close: () => closeAll(files),
  }
}

async function* extentBatches(
  batches: AsyncIterable<readonly Mapping[]>,
): AsyncGenerator<Extent[]> {
  for await (const batch of batches) yield batch.map(extentOf)
}
