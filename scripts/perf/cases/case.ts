import type { DataStore } from '../data.ts'
import type { Limit } from '../limits.ts'

/** What a case may use to get ready. */
export interface Setup {
  /** The start of our command line: node and the program's file. */
  ours: string[]
  data: DataStore
  /** Directory for files of this run; removed at its end. */
  scratch: string
  signal: AbortSignal
}

/** A case that is ready to run. Commands are argument lists, run without a shell. */
export interface Plan {
  /** The disk, in words. */
  disk: string
  /** Files to drop from the page cache before each run. */
  sources: string[]
  /** Format of the target; what an image owes is asked of qcow2 only. */
  format: 'raw' | 'qcow2'
  ours(target: string): string[]
  peer(target: string): string[]
  /** fio moving the same bytes through the same file system, where that is what bounds the case. */
  limit?(target: string): string[]
  /** Compares our result with the disk. @throws BackupError BAD_IMAGE if it differs */
  verify(target: string): Promise<void>
  limits: Limit[]
}

/** One comparison of our program with its peer. A new case is one of these in `cases/index.ts`. */
export interface PerfCase {
  name: string
  /** One line for people. */
  title: string
  /** Makes the data, outside of any measurement. */
  prepare(setup: Setup): Promise<Plan>
}
