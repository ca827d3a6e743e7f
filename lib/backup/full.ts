import { type CustomTarget, openCustomTarget } from '../copy/target/custom-target.ts'
import { argumentError } from '../errors.ts'
import type { CustomSource } from '../source/custom-source.ts'
import { runSession } from './session.ts'
import type { CopyResult, FullOptions } from './types.ts'

/**
 * Backs up a whole disk into a new, standalone qcow2 image. Zeroes, as read through the source's
 * whole chain, take no space in it.
 * @param source path of a raw or qcow2 image or of a block device, an NBD URI, the URL of an image of an
 * imageio server, or a custom source
 * @param target path of the image, mode 0600; it appears there only when complete and synced. A target
 * of the program's own gets the raw disk
 * @throws BackupError; an existing target is then unchanged
 */
export function fullBackup(
  source: string | CustomSource,
  target: string | CustomTarget,
  options: FullOptions = {},
): Promise<CopyResult> {
  if (typeof target !== 'string') return copyToCustom(source, target, options)
  return runSession({ from: source, to: target, format: 'qcow2', replaces: 'image', options })
}

async function copyToCustom(
  source: string | CustomSource,
  target: CustomTarget,
  options: FullOptions,
): Promise<CopyResult> {
  if (options.verify) throw argumentError('verify', 'needs a target that can be read back')
  return await runSession({
    from: source,
    to: target.name,
    format: 'raw',
    replaces: 'disk',
    options,
    openTarget: async () => openCustomTarget(target),
  })
}
