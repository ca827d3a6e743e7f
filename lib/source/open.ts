import { usageError } from '../errors.ts'
import type { Extent } from '../extents/extent.ts'
import { alignExtents, mergeExtents } from '../extents/merge.ts'
import { unsupported } from '../format/qcow2/fields.ts'
import { type Chain, closeAll, type OpenOptions, openChain } from './chain.ts'
import { type OpenFile, openFile, requireUnchanged } from './file.ts'
import { splitHoles } from './holes.ts'
import { readLayers } from './layer.ts'
import { extentOf, type Piece, type Source } from './source.ts'
import { detectZeroes } from './zeroes.ts'

export type { Format, OpenOptions } from './chain.ts'

/** Disks are accounted in sectors. */
const SECTOR = 512

/**
 * Opens a disk for reading: a raw or qcow2 image, in a file or on a block device, with all that it
 * builds on.
 * @param location a path
 * @param open how files are opened; for tests
 * @throws BackupError BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED (by the gate), IO, or USAGE for options
 */
export async function openSource(
  location: string,
  options: OpenOptions = {},
  open: OpenFile = openFile,
): Promise<Source> {
  requireFormat('--format', options.format)
  requireFormat('--backing-format', options.backingFormat)
  const scheme = /^(nbds?(?:\+unix)?|https?):\/\//.exec(location)
  if (scheme) throw unsupported(location, `${scheme[1]} sources are not supported by this version`)
  return sourceOf(location, await openChain(location, options, open))
}

/** JavaScript may pass anything, and an unknown format must not be taken for one of ours. */
function requireFormat(option: string, format: string | undefined): void {
  if (format === undefined || format === 'raw' || format === 'qcow2') return
  throw usageError(option, `'${format}' is not one of raw, qcow2`)
}

function sourceOf(name: string, { format, layers, files, sparse }: Chain): Source {
  const pieces = () => splitHoles(readLayers(layers), sparse)
  return {
    name,
    format,
    size: layers[0].size,
    files,
    pieces,
    extents({ detectZeroes: read = false } = {}) {
      const batches = read ? detectZeroes(files, pieces()) : extentBatches(pieces())
      return mergeExtents(alignExtents(batches, SECTOR))
    },
    checkUnchanged: () => requireUnchanged(files),
    close: () => closeAll(files),
  }
}

async function* extentBatches(batches: AsyncIterable<readonly Piece[]>): AsyncGenerator<Extent[]> {
  for await (const batch of batches) yield batch.map(extentOf)
}
