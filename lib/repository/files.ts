/** Small files of a repository: read whole, never changed, and there only when they are complete. */
import { dirname } from 'node:path'
import { openTarget, publishAll, type Target } from '../copy/target/open-target.ts'
import { BackupError, ioError } from '../errors.ts'
import {
  absolute,
  constants,
  type FileHandle,
  mkdir,
  open,
  rename,
  syncDirectory,
  unlink,
} from '../files.ts'
import { readAt } from '../format/read.ts'
import { openFile } from '../image/file.ts'

/** More nesting is no file of a repository; who goes through it by recursion would overflow its stack. */
const MAX_DEPTH = 100
/** Of a text that is shorter the depth is harmless, characters. */
const SHALLOW = 4096

/** Nobody else is to read what is in a disk. */
const PRIVATE = 0o700

/**
 * Reads a file of JSON.
 * @param most bytes that one may have
 * @returns undefined if there is none
 * @throws BackupError BAD_RECORD if it is not JSON or larger, IO, UNSUPPORTED
 */
export async function readJson(path: string, most: number): Promise<unknown> {
  const bytes = await readSmall(path, most)
  return bytes && parseJson(path, bytes.toString())
}

/** @throws BackupError BAD_RECORD */
export function parseJson(path: string, text: string): unknown {
  if (text.length > SHALLOW && isDeep(text)) {
    throw new BackupError('BAD_RECORD', path, 'is nested too deeply: no file of a repository')
  }
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new BackupError('BAD_RECORD', path, 'is not JSON', { cause: error })
  }
}

/** Whether a text of JSON has objects and arrays in each other deeper than files of ours. */
function isDeep(text: string): boolean {
  let depth = 0
  let isString = false
  for (let i = 0; i < text.length; i++) {
    const mark = text[i]
    if (mark === '"') isString = !isString
    else if (isString && mark === '\\') i++
    else if (isString) continue
    else if (mark === '[' || mark === '{') depth++
    else if (mark === ']' || mark === '}') depth--
    if (depth > MAX_DEPTH) return true
  }
  return false
}

/**
 * Reads a file of which there is little.
 * @param most bytes that one may have
 * @returns undefined if there is none
 * @throws BackupError BAD_RECORD if it is larger, IO, UNSUPPORTED
 */
export async function readSmall(path: string, most: number): Promise<Buffer | undefined> {
  const file = await openFile(path).catch((error: BackupError) => {
    if (error.errno === 'ENOENT') return undefined
    throw error
  })
  if (!file) return undefined
  try {
    if (file.size <= most) return await readAt(file, 0, file.size)
  } catch (error) {
    throw ioError(path, error)
  } finally {
    await file.handle.close()
  }
  throw new BackupError('BAD_RECORD', path, `is larger than ${most} bytes: no file of a repository`)
}

/**
 * Makes a file, mode 0600. It has its name, durably, when it is complete.
 * @param text by a function: called when what it replaces is locked and open; if that loses its name
 * meanwhile, nothing is replaced
 * @throws BackupError TARGET_EXISTS, IN_USE, IO
 */
export async function publishText(
  path: string,
  text: string | Buffer | (() => Promise<string>),
  { force }: { force?: boolean } = {},
): Promise<void> {
  const target = await stageText(path, text, { force })
  try {
    await publishAll([[target]])
  } finally {
    await target.discard()
  }
}

/**
 * Writes a file that is to be published together with others: see publishAll. As publishText.
 * @returns to be discarded, published or not
 */
export async function stageText(
  path: string,
  text: string | Buffer | (() => Promise<string>),
  { force }: { force?: boolean } = {},
): Promise<Target> {
  const target = await openTarget(path, { replaces: 'text', force, sources: [] })
  try {
    const content = typeof text === 'function' ? await text() : text
    await (target.handle as FileHandle).appendFile(content)
    return target
  } catch (error) {
    await target.discard()
    throw ioError(path, error)
  }
}

export function jsonText(value: object): string {
  return `${JSON.stringify(value, null, 1)}\n`
}

/**
 * Makes a directory, mode 0700, unless it is there.
 * @returns whether it was made
 * @throws BackupError IO
 */
export async function makeDirectory(path: string): Promise<boolean> {
  try {
    await mkdir(path, PRIVATE)
    await syncNames(dirname(absolute(path)))
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw ioError(path, error)
  }
}

/**
 * Renames files within a directory, durably; what has a new name is replaced.
 * @throws BackupError IO
 */
export async function renameFiles(
  directory: string,
  names: readonly (readonly [from: string, to: string])[],
): Promise<void> {
  for (const [from, to] of names) {
    await rename(`${directory}/${from}`, `${directory}/${to}`).catch((error) => {
      throw ioError(`${directory}/${to}`, error)
    })
  }
  if (names.length > 0) await syncNames(directory)
}

/**
 * Removes files from a directory, durably.
 * @returns those that were there
 * @throws BackupError IO
 */
export async function removeFiles(directory: string, names: readonly string[]): Promise<string[]> {
  const removed: string[] = []
  for (const name of names) {
    try {
      await unlink(`${directory}/${name}`)
      removed.push(name)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue
      throw ioError(`${directory}/${name}`, error)
    }
  }
  if (removed.length > 0) await syncNames(directory)
  return removed
}

/** @throws BackupError IO */
async function syncNames(path: string): Promise<void> {
  try {
    const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY)
    await syncDirectory(directory).finally(() => directory.close())
  } catch (error) {
    throw ioError(path, error)
  }
}
