import { argumentError, type BackupError, unsupported } from '../errors.ts'
import type { Extent } from '../extents/extent.ts'
import { alignExtents, mergeExtents } from '../extents/merge.ts'
import { requireUnchanged } from '../image/file.ts'
import { requireSnapshot } from '../image/internal-snapshot.ts'
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
 * builds on, an export of an NBD server, or a custom source.
 * @param location a path, an NBD URI, or a source of the program's own
 * @throws BackupError USAGE, BAD_IMAGE, BAD_BITMAP, UNSUPPORTED, NOT_ALLOWED (by the gate),
 * IN_USE or IO
 */
export async function openSource(
  location: string | CustomSource,
  options: KnowingOptions = {},
): Promise<Source> {
  if (options.snapshot !== undefined && (typeof location !== 'string' || isNbdUri(location))) {
    throw argumentError('snapshot', 'only a qcow2 image has internal snapshots')
  }
  if (typeof location !== 'string') return openCustom(location, options)
  if (isNbdUri(location)) return await openNbd(location, options)
  const scheme = /^(https?):\/\//.exec(location)
  if (scheme) throw unsupported(location, `${scheme[1]} sources are not supported by this version`)
  const { connections, timeoutMs, requestSize } = options
  if (connections !== undefined) throw onlyNbd('connections')
  if (timeoutMs !== undefined) throw onlyNbd('timeoutMs')
  if (requestSize !== undefined) throw onlyNbd('requestSize')
  return sourceOf(location, await openChain(location, options), options.signal)
}

function onlyNbd(option: string): BackupError {
  return argumentError(option, 'is only supported for NBD sources')
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
