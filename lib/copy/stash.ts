import type { Range } from '../extents/range-set.ts'
import { freeBytes } from '../files.ts'
import { native } from '../native.ts'
import type { SourceFile } from '../source/source.ts'
import type { Location } from './target/location.ts'
import { TemporaryFile } from './target/temporary-file.ts'

/**
 * A file beside a copy's target that keeps data which is copied out of turn, at its guest offsets, until
 * the copy gets there. It is removed with the copy, however that ends.
 */
export class Stash {
  /** To read from, and to write to. */
  readonly file: SourceFile
  readonly #temporary: TemporaryFile

  /**
   * @param size of the disk, bytes
   * @throws errors of the system calls
   */
  static async beside(target: Location, size: number): Promise<Stash> {
    const temporary = await TemporaryFile.in(target)
    try {
      await temporary.handle.truncate(size)
    } catch (error) {
      await temporary.discard()
      throw error
    }
    return new Stash(temporary, target.path, size)
  }

  private constructor(temporary: TemporaryFile, target: string, size: number) {
    const { handle, identity } = temporary
    this.#temporary = temporary
    this.file = {
      kind: 'file',
      path: `the temporary file beside ${target}`,
      handle,
      size,
      identity,
      // They were read from the source before.
      unlimited: true,
    }
  }

  /**
   * Bytes that may still be put: half of the room that there would be without it, so that it never takes
   * the room that the target needs, which may be compressed.
   */
  async room(): Promise<number> {
    const { handle } = this.file
    const used = (await handle.stat()).blocks * 512
    return Math.max(0, Math.floor(((await freeBytes(handle)) + used) / 2) - used)
  }

  /** Gives back the room of ranges that are not needed any more. */
  async free(ranges: readonly Range[]): Promise<void> {
    const pairs = new Float64Array(ranges.flatMap(({ start, length }) => [start, length]))
    await native().punchFile(this.file.handle.fd, pairs)
  }

  /** Never fails. */
  async discard(): Promise<void> {
    await this.#temporary.discard()
  }
}
