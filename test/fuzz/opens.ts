/** Sees what files this process opens. */
import { realpathSync } from 'node:fs'
import fs from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { dirname } from 'node:path'

/**
 * Puts an own `open` in the place of that of `node:fs/promises`, the one by which images are opened.
 * @returns what was opened outside of a directory since it was asked last
 */
export function watchOpens(): (directory: string) => string[] {
  let opened: string[] = []
  const { open } = fs
  fs.open = async (path, ...rest) => {
    opened.push(String(path))
    return await open(path, ...rest)
  }
  syncBuiltinESMExports()
  return (directory) => {
    const outside = opened.filter((path) => !isIn(path, directory))
    opened = []
    return outside
  }
}

/** A file of the directory itself, links followed; or one that is open, opened again. */
function isIn(path: string, directory: string): boolean {
  if (path.startsWith('/proc/self/fd/')) return true
  try {
    return dirname(realpathSync(path)) === directory
  } catch {
    // There is none.
    return true
  }
}
