/** qcow2-backup: reads VM disks and writes standard qcow2 images. */

export { fullBackup } from './backup/full.ts'
export { incrementalBackup } from './backup/incremental.ts'
export { restore } from './backup/restore.ts'
export type {
  CopyOptions,
  CopyResult,
  DiscardOptions,
  FullOptions,
  ImageOptions,
  IncrementalOptions,
  OpenOptions,
  Progress,
  RestoreOptions,
} from './backup/types.ts'
export { BackupError, type ErrorCode } from './errors.ts'
export type { Extent } from './extents/extent.ts'
export type { CustomExtent, CustomSource } from './source/custom.ts'
export { openSource } from './source/open.ts'
export type { Piece, Source, SourceExport, SourceFile, SourceReader } from './source/source.ts'
