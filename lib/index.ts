/** qcow2-backup: reads VM disks and writes standard qcow2 images. */

export { fullBackup } from './backup/full.ts'
export { incrementalBackup } from './backup/incremental.ts'
export type { Manifest } from './backup/manifest.ts'
export { restore } from './backup/restore.ts'
export type {
  ContentHash,
  CopyOptions,
  CopyResult,
  DiscardOptions,
  FullOptions,
  ImageOptions,
  IncrementalOptions,
  OpenOptions,
  Progress,
  RestoreOptions,
  VerifyingOptions,
} from './backup/types.ts'
export {
  type ManifestVerified,
  type VerifyManifestsOptions,
  verifyManifests,
} from './backup/verify-manifests.ts'
export {
  BackupError,
  type BackupErrorOptions,
  type ErrorCode,
  type Hint,
  isBackupError,
} from './errors.ts'
export type { Extent } from './extents/extent.ts'
export {
  type BitmapOperation,
  BitmapOperationError,
  type EditBitmapOptions,
  editBitmap,
} from './maintain/bitmaps.ts'
export {
  type ChainReport,
  type ChainReportImage,
  readBitmapChain,
} from './maintain/chain-report.ts'
export { type CommitOptions, type CommitResult, commitImage } from './maintain/commit/commit.ts'
export {
  type CompareOptions,
  type DiffDisksOptions,
  type Differences,
  type DiffOptions,
  type DiffResult,
  diffDisks,
  diffToBitmap,
} from './maintain/diff/diff.ts'
export type { UnreadableArea } from './maintain/diff/differences.ts'
export { type BitmapInfo, listBitmaps, readBitmap } from './maintain/list-bitmaps.ts'
export { createSnapshot, type SnapshotOptions, type SnapshotResult } from './maintain/snapshot.ts'
export { type Verified, type VerifyOptions, verifyImages } from './parity/parity.ts'
export { type CheckOptions, checkImage, type ImageCheck } from './qemu-img/check/image.ts'
export {
  type CompareImagesOptions,
  type Comparison,
  compareImages,
} from './qemu-img/compare/images.ts'
export { backingChainInfo, type ImageInfo, imageInfo } from './qemu-img/info/info.ts'
export { type MapOptions, mapImage } from './qemu-img/map/image.ts'
export type { MapEntry } from './qemu-img/map/map.ts'
export { type MeasureImageOptions, measureImage, measureSize } from './qemu-img/measure/image.ts'
export type { Measure } from './qemu-img/measure/measure.ts'
export { QemuImgError } from './qemu-img/messages.ts'
export {
  type BitmapFacts,
  type BitmapHealth,
  type BitmapPlace,
  type ImageFacts,
  validateBitmapChain,
} from './source/bitmaps/health.ts'
export { BadBitmapChain } from './source/bitmaps/open.ts'
export { factsFromQmp, type NamedBitmap, type NamedBlockNode } from './source/bitmaps/qmp-facts.ts'
export type { CustomExtent, CustomSource } from './source/custom.ts'
export { openSource } from './source/open.ts'
export type { Piece, Source, SourceExport, SourceFile, SourceReader } from './source/source.ts'
/** Names that are not UTF-8: to the text that every function here takes and gives, and back. */
export { decodeText as nameFromBytes, encodeText as nameToBytes } from './text.ts'
