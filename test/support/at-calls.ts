/** Does something between two system calls on a file's name that this process makes. */
import { readlinkSync } from 'node:fs'
import fs, { type FileHandle } from 'node:fs/promises'
import { syncBuiltinESMExports } from 'node:module'
import { basename } from 'node:path'
import { O_PATH } from '../../lib/files.ts'

const LOOKING = ['open', 'stat', 'lstat', 'realpath', 'readlink', 'readdir', 'access'] as const
/** Including those that change the target of a name. */
export const NAMING = [...LOOKING, 'rename', 'link', 'unlink'] as const

export interface Calls {
  /** How many concerned the file. */
  count: number
  /** Files opened for reading or writing, each by its path without links. */
  opened: string[]
}

/**
 * Runs something, and calls `act` right before the call number `at` that concerns a file: its name,
 * or a descriptor of it. Only calls by `node:fs/promises` count, by which the library makes all. To
 * act between two of these is the same as to act before the second.
 * @param at from 0; a number that is never reached: never
 * @param file its path without links
 * @param names the calls that count
 */
export async function actAtCall<T>(
  at: number,
  file: string,
  act: () => void,
  run: () => Promise<T>,
  names: readonly (typeof NAMING)[number][] = LOOKING,
): Promise<Calls & { outcome: PromiseSettledResult<T> }> {
  const calls: Calls = { count: 0, opened: [] }
  const own = Object.fromEntries(names.map((name) => [name, fs[name]]))
  for (const name of names) {
    const call = own[name] as (...args: unknown[]) => Promise<unknown>
    Object.assign(fs, {
      async [name](...args: unknown[]) {
        if (concerns(args[0], file) && calls.count++ === at) act()
        const result = await call(...args)
        if (name === 'open' && !isOnlyFound(args[1])) {
          calls.opened.push(readlinkSync(`/proc/self/fd/${(result as FileHandle).fd}`))
        }
        return result
      },
    })
  }
  syncBuiltinESMExports()
  try {
    const [outcome] = await Promise.allSettled([run()])
    return { ...calls, outcome }
  } finally {
    Object.assign(fs, own)
    syncBuiltinESMExports()
  }
}

function concerns(name: unknown, file: string): boolean {
  const path = String(name)
  if (basename(path) === basename(file)) return true
  if (!/^\/proc\/self\/fd\/\d+$/.test(path)) return false
  // A replaced file is `FILE (deleted)`.
  return readlinkSync(path).startsWith(file)
}

/** A descriptor opened with O_PATH cannot be read. */
function isOnlyFound(flags: unknown): boolean {
  return typeof flags === 'number' && (flags & O_PATH) !== 0
}
