/** Records the files that this process opens. */
import { readlinkSync } from 'node:fs'
import fs from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { O_PATH } from '../../lib/files.ts'

/**
 * Puts an own `open` in the place of that of `node:fs/promises`, the one by which images are opened.
 * Files and directories that are only found (O_PATH) do not count: nothing can be read of them.
 * @returns files opened since the last call, each by its path without links
 */
export function watchOpens(): () => string[] {
  let opened: string[] = []
  const { open } = fs
  fs.open = async (path, flags, ...rest) => {
    const handle = await open(path, flags, ...rest)
    const found = typeof flags === 'number' && (flags & O_PATH) !== 0
    if (!found) opened.push(readlinkSync(`/proc/self/fd/${handle.fd}`))
    return handle
  }
  syncBuiltinESMExports()
  return () => {
    const all = opened
    opened = []
    return all
  }
}
