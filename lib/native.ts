import { createRequire } from 'node:module'
import { dirname } from 'node:path'

/** Handle of a copy that the addon runs; only ever handed back to the addon. */
export interface CopyJob {
  readonly __copyJob: unique symbol
}

/** What the addon offers. Arguments are checked by the callers in TypeScript. */
export interface Addon {
  /** Versions of the libraries linked into the addon. */
  versions(): { uring: string; deflate: string; zstd: string; zlib: string }
  /**
   * Runs of data and holes of a file (SEEK_DATA, SEEK_HOLE) from `start` to at most `end`.
   * @returns triples start, length, 1 for data or 0 for a hole; at most `max` runs, contiguous from
   * `start`; the last ends at `end` or the caller asks again from where it ends
   */
  fileExtents(fd: number, start: number, end: number, max: number): Promise<Float64Array>
  /** Size in bytes of a block device, or of a file. */
  deviceSize(fd: number): number
  /** Gives an unnamed file (O_TMPFILE) a name; fails with EEXIST if the name is taken. */
  linkFile(fd: number, path: string): void
  /** See lib/copy/copy.ts, which is the only caller. */
  copyStart(options: object): CopyJob
  copyPush(job: CopyJob, rows: Float64Array): Promise<void>
  copyFinish(job: CopyJob): Promise<object>
  copyCancel(job: CopyJob): void
  copyProgress(job: CopyJob, into: Float64Array): void
}

let addon: Addon | undefined

/** Loads the addon on first use: commands that only read metadata never pay for it. */
export function native(): Addon {
  if (!addon) {
    const require = createRequire(import.meta.url)
    const root = dirname(require.resolve('qcow2-backup/package.json'))
    addon = require('node-gyp-build')(root) as Addon
  }
  return addon
}
