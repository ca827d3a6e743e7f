import type { BackupError } from '../../errors.ts'
import type { Verified } from '../verified.ts'

/** What is found when a repository is verified: one for each image, and for all else that is not as it should be. */
export interface RepositoryFinding {
  /**
   * - `image`: an image that a record names;
   * - `missing`: one that is not there;
   * - `record`: a record, a journal or a machine's folder that cannot be read;
   * - `orphan`: an image, or a definition, that no record names;
   * - `leftover`: a journal or a temporary file, of a run that was killed or is under way;
   * - `memory`: what was found could not be remembered.
   */
  kind: 'image' | 'missing' | 'record' | 'orphan' | 'leftover' | 'memory'
  machine: string
  point?: string
  /** Name of the disk. */
  disk?: string
  /** Path. */
  file: string
  /** Of an image: its structure was checked, and its content read and compared with its record. */
  read?: boolean
  /** An image that was not read: when it was the last time. */
  verified?: Verified
  /** False: a point that needs this file cannot be trusted, or somebody has to decide what becomes of it. */
  same: boolean
  /** The fault, if `same` is false. */
  difference?: string
  /** `BackupError.code` of the fault. */
  code?: BackupError['code']
  /** File name of an image below that is bad, so that this one's disk is not what it was. */
  dependsOn?: string
  notes: string[]
}
