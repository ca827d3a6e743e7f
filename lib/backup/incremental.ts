import { argumentError } from '../errors.ts'
import { isImageUrl } from '../imageio/client/address.ts'
import type { CustomSource } from '../source/custom-source.ts'
import { runSession } from './session.ts'
import type { CopyResult, IncrementalOptions } from './types.ts'

/**
 * Backs up the changes since the previous backup, as recorded by a dirty bitmap, into a new qcow2 image
 * over that backup. Ranges that were written since and read as zero now become zero clusters, unread.
 * @param source a qcow2 image that holds the bitmap, an NBD export that offers it, an image of an imageio
 * server whose ticket has one, or a custom source, whose extents carry `dirty`
 * @param target path of the image, mode 0600; it appears there only when complete and synced
 * @throws BackupError; an existing target is then unchanged
 */
export async function incrementalBackup(
  source: string | CustomSource,
  target: string,
  options: IncrementalOptions,
): Promise<CopyResult> {
  const { backing: previous, ...rest } = options
  return await runSession({
    from: source,
    to: target,
    format: 'qcow2',
    replaces: 'image',
    options: { ...rest, bitmap: bitmapOf(source, rest.bitmap) },
    // Never undefined: that would be a full backup.
    previous: previous ?? '',
  })
}

/**
 * The bitmap by which an increment of a source is made; undefined for a source that reports by itself what
 * changed.
 * @param bitmap the one that was named
 * @throws BackupError USAGE if none was, and the source needs one
 */
export function bitmapOf(
  source: string | CustomSource,
  bitmap: string | undefined,
): string | undefined {
  if (bitmap || typeof source !== 'string') return bitmap
  // An imageio server has one for the ticket, and does not tell its name.
  if (isImageUrl(source)) return 'dirty'
  throw argumentError('bitmap', 'missing; it names the bitmap that records what changed')
}
