import type { PointRecord } from './record.ts'

/** A machine's folder in a repository, locked for one run. */
export interface MachineFolder {
  readonly machine: string
  /** Path. */
  readonly directory: string
  /** All points, oldest first. Broken records are errors, never skipped. */
  points(): Promise<PointRecord[]>
  /** Path of the image of a disk at a point, whether it is there or not. */
  imagePath(disk: string, point: string): string
  /**
   * Writes the record, synced, under its name: the point exists when this resolves. `definition` goes
   * first, into POINT.xml.
   */
  record(record: PointRecord, definition?: string): Promise<void>
  /** Removes images and temporary files that no record names, of runs that ended early. */
  clean(): Promise<string[]>
  /** Ends the lock. */
  close(): Promise<void>
}
