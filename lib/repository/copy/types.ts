import type { BackupError } from '../../errors.ts'
import type { CopyOptions } from '../../options.ts'

/** Options of `copyRepository`. */
export interface CopyRepositoryOptions extends Omit<CopyOptions, 'force'> {
  /** Only this machine. Default: all. */
  machine?: string
  /** Only this point of the machine, with all that its images build on. Default: all. */
  point?: string
  /** Tell what would be copied, and copy nothing. */
  dryRun?: boolean
}

/** A point that was copied; sizes in bytes. */
export interface CopiedPoint {
  point: string
  /** Lengths of its images. */
  fileSize: number
  /** Blocks of its images, in the target; with `dryRun` in the source, when they were made. */
  allocatedBytes: number
}

/** Why something was not copied. */
export interface NotCopied {
  /** Missing if it is the whole machine, or all that was left of it. */
  point?: string
  code: BackupError['code']
  /** `WHAT: WHY`. */
  difference: string
}

/** What became of a machine. */
export interface CopiedMachine {
  machine: string
  /** Each after those that its images build on; with `dryRun` those that would be copied. */
  copied: CopiedPoint[]
  /** Points that the target had, of those that were asked for. */
  present: number
  failed: NotCopied[]
}

/** Result of `copyRepository`. */
export interface CopyRepositoryResult {
  /** Nothing failed. */
  complete: boolean
  /** In their order as texts. */
  machines: CopiedMachine[]
  elapsedSeconds: number
}
