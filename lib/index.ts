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
export { BackupError, type ErrorCode } from './errors.ts'
export type { Extent } from './extents/extent.ts'
export { type BitmapInfo, listBitmaps, readBitmap } from './image/bitmap-list.ts'
export {
  type BitmapOperation,
  BitmapOperationError,
  type EditBitmapOptions,
  editBitmap,
} from './image/bitmaps.ts'
export { type ChainReport, type ChainReportImage, readBitmapChain } from './image/chain.ts'
export { factsFromQmp, type NamedBitmap, type NamedBlockNode } from './image/chain-qmp.ts'
export { type CommitOptions, type CommitResult, commitImage } from './image/commit/commit.ts'
export {
  type CompareOptions,
  type DiffDisksOptions,
  type Differences,
  type DiffOptions,
  type DiffResult,
  diffDisks,
  diffToBitmap,
} from './image/diff/diff.ts'
export type { UnreadableArea } from './image/diff/differences.ts'
export { createSnapshot, type SnapshotOptions, type SnapshotResult } from './image/snapshot.ts'
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
export { BadBitmapChain } from './source/bitmap.ts'
export {
  type BitmapFacts,
  type BitmapHealth,
  type BitmapPlace,
  type ImageFacts,
  validateBitmapChain,
} from './source/chain-health.ts'
export type { CustomExtent, CustomSource } from './source/custom.ts'
export { openSource } from './source/open.ts'
export type { Piece, Source, SourceExport, SourceFile, SourceReader } from './source/source.ts'
export {
  type ManifestVerified,
  type VerifyManifestsOptions,
  verifyManifests,
} from './verify/manifests.ts'
export { type Verified, type VerifyOptions, verifyImages } from './verify/verify.ts'
