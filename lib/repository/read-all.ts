import { ioError } from '../errors.ts'
import { pathBytes } from '../files.ts'
import { native } from '../native.ts'
import { encodeText } from '../text.ts'
import { parseJson, readJson } from './files.ts'

/** Files that are read in one go: enough to make the way to the addon and back cheap. */
const BATCH = 128
/** Bytes of a batch. A file that does not fit is read alone. */
const ROOM = 2 ** 20
/** Batches at once, as many as Node has threads: over a network each file takes its time. */
const AT_ONCE = 4

/**
 * Reads small files of JSON: as readJson, of thousands.
 * @param most bytes that one may have
 * @returns batches of names and values, in the order of the names. Files that are gone are left out
 * @throws BackupError as readJson, of the first one that is wrong
 */
export async function* readAllJson(
  directory: string,
  names: readonly string[],
  most: number,
): AsyncGenerator<readonly [name: string, value: unknown][]> {
  const read = (from: number) => {
    const batch = names.slice(from, from + BATCH)
    const list = encodeText(batch.map((name) => `${name}\0`).join(''))
    const reading = native().readFiles(pathBytes(directory), list, Math.min(ROOM, BATCH * most))
    // Awaited later, if at all.
    reading.catch(() => {})
    return { batch, reading }
  }
  const ahead: ReturnType<typeof read>[] = []
  let next = 0
  while (next < names.length || ahead.length > 0) {
    for (; ahead.length < AT_ONCE && next < names.length; next += BATCH) ahead.push(read(next))
    const { batch, reading } = ahead.shift()!
    const { bytes, lengths } = await reading.catch((error) => {
      throw ioError(directory, error)
    })
    const values: [string, unknown][] = []
    let at = 0
    for (const [i, name] of batch.entries()) {
      const path = `${directory}/${name}`
      const length = lengths[i]
      if (length >= 0 && length <= most) {
        values.push([name, parseJson(path, bytes.toString('utf8', at, at + length))])
      } else {
        const value = await readJson(path, most)
        if (value !== undefined) values.push([name, value])
      }
      at += Math.max(length, 0)
    }
    yield values
  }
}
