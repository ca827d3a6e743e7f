import type { FileHandle } from '../../files.ts'
import { openDeviceTarget } from './device-target.ts'
import { openFileTarget } from './file-target.ts'
import { judge, type Replaceable, type SourceIdentity } from './judge.ts'
import { type Location, locate } from './location.ts'
import type { Target } from './target.ts'

export type { Replaceable, SourceIdentity } from './judge.ts'
export { publishAll } from './publish.ts'
export type { Target } from './target.ts'

export interface TargetOptions {
  /** Replace an existing file; it stays unchanged until the new one is published. */
  force?: boolean
  /** Kinds of file that may be replaced. Default: any disk. */
  replaces?: Replaceable
  /** Everything that is read, none of which may be the target, or lie on the same storage. */
  sources: readonly SourceIdentity[]
}

/**
 * Opens a target, after the checks that can be made before a byte is written. A symbolic link is
 * followed, and its target is made or replaced.
 * @param to a path, or where that leads, which `discard` of the target closes; closed if this fails
 * @throws BackupError USAGE, TARGET_EXISTS, BAD_TARGET, IN_USE, or IO naming the target or its
 * directory
 */
export async function openTarget(
  to: string | Location,
  { force = false, replaces = 'disk', sources }: TargetOptions,
): Promise<Target> {
  const location = typeof to === 'string' ? await locate(to) : to
  let handle: FileHandle | undefined
  try {
    const standing = await judge(location, { force, replaces, sources })
    handle = standing?.handle
    if (standing?.kind === 'device') return openDeviceTarget(location, handle as FileHandle)
    return await openFileTarget(location, standing)
  } catch (error) {
    await handle?.close()
    await location.directory.close()
    throw error
  }
}
