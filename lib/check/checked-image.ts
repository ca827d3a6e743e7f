import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import type { Snapshot } from '../format/qcow2/snapshots.ts'
import type { OpenFile } from '../image/file.ts'

/** An image as a check reads it. */
export interface CheckedImage {
  file: OpenFile
  header: Qcow2Header
  snapshots: readonly Snapshot[]
  /** Bytes of the table of snapshots. */
  snapshotsSize: number
}
