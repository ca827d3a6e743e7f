import { movedNotes } from '../../copy/target/location.ts'
import { openTarget, publishAll, type SourceIdentity } from '../../copy/target/open-target.ts'
import { ioError } from '../../errors.ts'
import type { FileHandle } from '../../files.ts'

/** A file that gets a JSON array, one item to a line. */
export interface ListFile {
  add(items: readonly object[]): Promise<void>
  /**
   * It appears under its name now, complete and synced.
   * @returns caveats about it
   */
  publish(): Promise<string[]>
  /** Leaves nothing that was not published. Never fails. */
  discard(): Promise<void>
}

/**
 * Makes a file for a list.
 * @param sources the files read, none of which may be the output file
 * @throws BackupError TARGET_EXISTS, BAD_TARGET, IO
 */
export async function openList(
  path: string,
  { force, sources }: { force?: boolean; sources: readonly SourceIdentity[] },
): Promise<ListFile> {
  const target = await openTarget(path, { force, replaces: 'text', sources })
  const handle = target.handle as FileHandle
  let before = '['
  const write = async (text: string) => {
    await handle.appendFile(text).catch((error) => {
      throw ioError(path, error)
    })
  }
  return {
    async add(items) {
      if (items.length === 0) return
      await write(before + items.map((item) => JSON.stringify(item)).join(',\n '))
      before = ',\n '
    },
    async publish() {
      await write(before === '[' ? '[]\n' : ']\n')
      const left = await publishAll([[target]])
      return [...movedNotes(path, await target.located()), ...left]
    },
    discard: () => target.discard(),
  }
}
