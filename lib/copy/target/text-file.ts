import { ioError } from '../../errors.ts'
import type { FileHandle } from '../../files.ts'
import { movedNotes } from './location.ts'
import { openTarget, publishAll, type TargetOptions } from './open-target.ts'

/** A file of text, mode 0600. It has its name, durably, when it is complete. */
export interface TextFile {
  /** @throws BackupError IO */
  write(text: string | Buffer): Promise<void>
  /**
   * It appears under its name now, complete and synced.
   * @returns caveats about it
   * @throws BackupError IO
   */
  publish(): Promise<string[]>
  /** Leaves nothing that was not published. Never fails. */
  discard(): Promise<void>
}

type TextOptions = Pick<TargetOptions, 'force' | 'sources'> & { replaces?: 'text' | 'page' }

/**
 * Makes a file of text.
 * @param options `sources`: the files read, none of which may be this one; `replaces`: default text
 * @throws BackupError TARGET_EXISTS, BAD_TARGET, IO
 */
export async function openText(
  path: string,
  { force, sources, replaces = 'text' }: TextOptions,
): Promise<TextFile> {
  const target = await openTarget(path, { force, replaces, sources })
  const handle = target.handle as FileHandle
  return {
    async write(text) {
      await handle.appendFile(text).catch((error) => {
        throw ioError(path, error)
      })
    },
    async publish() {
      const left = await publishAll([[target]])
      return [...movedNotes(path, await target.located()), ...left]
    },
    discard: () => target.discard(),
  }
}
