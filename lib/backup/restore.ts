import { copyToNew } from './copy.ts'
import type { CopyResult, RestoreOptions } from './types.ts'

/**
 * Writes the content of a backup, with its whole chain, to a new disk.
 * @param backup path of a qcow2 image. Not recognised by its content: a backup whose first bytes
 * are damaged must not pass for a raw disk; `format: 'raw'` says that it is one
 * @param target path of a new sparse file, a block device, or with `to: 'qcow2'` of a new image
 * @throws BackupError; what stood under the target's name is then as it was
 */
export function restore(
  backup: string,
  target: string,
  options: RestoreOptions = {},
): Promise<CopyResult> {
  const { to = 'raw', format = 'qcow2' } = options
  return copyToNew(backup, target, to, { ...options, format })
}
