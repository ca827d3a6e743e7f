import type { DataStore } from '../data.ts'
import type { Limit } from '../limits.ts'
import type { Timed } from '../measure.ts'
import type { Run } from '../results.ts'
import type { Stage } from '../servers/server.ts'

/** Environment of a case's preparation. */
export interface Setup extends Stage {
  /** The start of our command line: node and the program's file. */
  ours: string[]
  data: DataStore
}

/** A case that is ready to run. Commands are argument lists, run without a shell. */
export interface Plan {
  /** The disk, in words. */
  disk: string
  /** Files to drop from the page cache before each run. */
  sources: string[]
  /** Format of the target; limits on images apply to qcow2 only. */
  format: 'raw' | 'qcow2'
  /** Before each run, outside of its time: files that the run changes are made anew. */
  before?(target: string): Promise<void>
  /** A command; where our part is more than that, its run. */
  ours(target: string): string[] | Timed<Run>
  /** May leave the target out, where the peer does a part of the work only. */
  peer(target: string): string[] | Timed<Run>
  /** The same bytes moved without any of the work on them, where that is what bounds the case. */
  limit?(target: string): Timed<number>
  /** Compares our result with the disk. @throws BackupError BAD_IMAGE if it differs */
  verify(target: string): Promise<void>
  limits: Limit[]
}

/** One comparison of our program with its peer. A new case is one of these in `cases/index.ts`. */
export interface PerfCase {
  name: string
  /** One line for people. */
  title: string
  /** Makes the data and starts the servers, outside of any measurement. */
  prepare(setup: Setup): Promise<Plan>
}
