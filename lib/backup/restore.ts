import { openNbdTarget } from '../copy/nbd-target.ts'
import { argumentError } from '../errors.ts'
import { isNbdUri } from '../nbd/uri.ts'
import { copyToNew } from './copy.ts'
import type { CopyResult, RestoreOptions } from './types.ts'

/**
 * Writes the content of a backup, with its whole chain, to a new disk.
 * @param backup path of a qcow2 image. Not recognised by its content: a backup whose first bytes
 * are damaged must not pass for a raw disk; `format: 'raw'` says that it is one
 * @param target path of a new sparse file, a block device, with `to: 'qcow2'` of a new image, or
 * the URI of an NBD export, which is overwritten
 * @throws BackupError; what stood under the target's name is then as it was, but for a device and
 * an export
 */
export async function restore(
  backup: string,
  target: string,
  options: RestoreOptions = {},
): Promise<CopyResult> {
  const { to = 'raw', format = 'qcow2', noHole, ...rest } = options
  if (isNbdUri(target)) {
    if (to !== 'raw') throw argumentError('to', 'an NBD export takes a raw disk')
    return await restoreToNbd(backup, target, { ...options, format })
  }
  if (noHole) throw argumentError('noHole', 'only goes with an NBD export as target')
  return await copyToNew(backup, target, to, { ...rest, format })
}

/** The options for NBD are about the target then. */
function restoreToNbd(
  backup: string,
  target: string,
  options: RestoreOptions,
): Promise<CopyResult> {
  const { noHole, connections, timeoutMs, ...rest } = options
  return copyToNew(backup, target, 'raw', rest, undefined, () =>
    openNbdTarget(target, { connections, timeoutMs, requests: options.requests, noHole }),
  )
}
