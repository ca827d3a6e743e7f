import type { SourceIdentity } from '../../copy/target/open-target.ts'
import { openText } from '../../copy/target/text-file.ts'

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
  options: { force?: boolean; sources: readonly SourceIdentity[] },
): Promise<ListFile> {
  const file = await openText(path, options)
  let before = '['
  return {
    async add(items) {
      if (items.length === 0) return
      await file.write(before + items.map((item) => JSON.stringify(item)).join(',\n '))
      before = ',\n '
    },
    async publish() {
      await file.write(before === '[' ? '[]\n' : ']\n')
      return await file.publish()
    },
    discard: () => file.discard(),
  }
}
