/** qcow2-backup: reads VM disks and writes standard qcow2 images. */

export { fullBackup, incrementalBackup, restore } from './api/backup.ts'
export {
  editBitmap,
  factsFromQmp,
  listBitmaps,
  readBitmap,
  readBitmapChain,
  validateBitmapChain,
} from './api/bitmaps.ts'
export { copyRepository } from './api/copy-repository.ts'
export { createImageServer, serveImages } from './api/image-server.ts'
export {
  backingChainInfo,
  type CheckOptions,
  type CompareImagesOptions,
  checkImage,
  compareImages,
  type InfoOptions,
  imageInfo,
  type MapOptions,
  type MeasureImageOptions,
  mapImage,
  measureImage,
  measureSize,
} from './api/images.ts'
export {
  type AbortMachineOptions,
  abortMachine,
  backupMachine,
  inspectMachine,
  type MachineReport,
} from './api/machine.ts'
export {
  type CommitOptions,
  commitImage,
  createSnapshot,
  type DiffDisksOptions,
  type DiffOptions,
  diffDisks,
  diffToBitmap,
  type NewBacking,
  type RebaseOptions,
  rebaseImage,
} from './api/maintain.ts'
export { nameFromBytes, nameToBytes } from './api/names.ts'
export { compareWithQemuImg } from './api/parity.ts'
export { pruneRepository } from './api/prune.ts'
export { reportImage, reportRepository } from './api/report.ts'
export {
  type ListedPoint,
  type ListRepositoryOptions,
  listRepository,
  repairRepository,
  restoreMachine,
} from './api/repository.ts'
export { type OpenSourceOptions, openSource } from './api/source.ts'
export {
  type FullStreamOptions,
  fullBackupStream,
  type IncrementalStreamOptions,
  incrementalBackupStream,
} from './api/stream.ts'
export { verifyManifests, verifyRepository } from './api/verify.ts'
export type { Manifest } from './backup/manifest.ts'
export type {
  ContentHash,
  CopyOptions,
  CopyResult,
  DiscardOptions,
  FullOptions,
  ImageOptions,
  IncrementalOptions,
  OpenOptions,
  RestoreOptions,
  VerifyingOptions,
} from './backup/types.ts'
export type { ManifestVerdict, VerifyManifestsOptions } from './backup/verify-manifests.ts'
export type { CustomTarget } from './copy/target/custom-target.ts'
export {
  BackupError,
  type BackupErrorOptions,
  type ErrorCode,
  type Hint,
  isBackupError,
} from './errors.ts'
export type { Extent } from './extents/extent.ts'
export type { DirtyRun } from './format/qcow2/bits.ts'
export type {
  BackupMachineOptions,
  BackupMachineResult,
  DiskBackup,
  DiskToCopy,
} from './live/types.ts'
export type { LogLine, Topic } from './log.ts'
export type {
  Ability,
  CbwErrorPolicy,
  Leftover,
  MachineDisk,
  MachineOptions,
} from './machine/machine.ts'
export type { ChainReport, ChainReportImage, ChainReportOptions } from './maintain/chain-report.ts'
export type { CommitResult } from './maintain/commit/commit.ts'
export type { SnapshotOptions, SnapshotResult } from './maintain/create-snapshot.ts'
export type { Differences, DiffResult } from './maintain/diff/diff.ts'
export type { UnreadableRange } from './maintain/diff/differences.ts'
export { type BitmapOperation, BitmapOperationError } from './maintain/edit-bitmap.ts'
export type { BitmapInfo, ReadBitmapOptions } from './maintain/list-bitmaps.ts'
export type { RebaseResult } from './maintain/rebase/rebase.ts'
export type { ControlOptions } from './options.ts'
export type { CommandComparison, ParityOptions } from './parity/parity.ts'
export type { DiskProgress, Phase, Progress } from './progress.ts'
export type { ImageCheck } from './qemu-img/check/result.ts'
export type { Comparison } from './qemu-img/compare/compare-images.ts'
export type { ImageInfo } from './qemu-img/info/info.ts'
export type { MapEntry } from './qemu-img/map/map.ts'
export type { Measure } from './qemu-img/measure/measure.ts'
export type { MeasureTarget } from './qemu-img/measure/measure-image.ts'
export { QemuImgError } from './qemu-img/messages.ts'
export type { Finding } from './report/finding.ts'
export type { ReportImageOptions } from './report/image/report-image.ts'
export type {
  Amounts,
  DiskMap,
  ImageReport,
  ReportedBitmap,
  ReportedCheck,
  ReportedImage,
  ReportedSnapshot,
} from './report/image/types.ts'
export type { PageOptions, Reported } from './report/publish.ts'
export type { ReportRepositoryOptions } from './report/repository/report-repository.ts'
export type {
  ReportedDisk,
  ReportedMachine,
  ReportedPoint,
  ReportedPrune,
  RepositoryNote,
  RepositoryReport,
} from './report/repository/types.ts'
export type {
  CopiedMachine,
  CopiedPoint,
  CopyRepositoryOptions,
  CopyRepositoryResult,
  NotCopied,
} from './repository/copy/types.ts'
export type {
  JoinedImage,
  MachinePrune,
  PrunedPoint,
  PruneOptions,
} from './repository/prune/prune.ts'
export type { DiskRecord, PointRecord } from './repository/record.ts'
export type { RepairRepositoryOptions } from './repository/repair/repair-repository.ts'
export type { RepairStep } from './repository/repair/step.ts'
export type { RestoreMachineOptions, RestoreMachineResult } from './repository/restore-point.ts'
export type { RetentionPolicy } from './repository/retention.ts'
export type { Verified } from './repository/verified.ts'
export type { RepositoryFinding } from './repository/verify/finding.ts'
export type {
  MachineOrPoint,
  VerifyRepositoryOptions,
} from './repository/verify/verify-repository.ts'
export type { ImageServer, ImageServerOptions } from './server/image-server.ts'
export type { Listening, ServeOptions } from './server/serve.ts'
export type { TicketRequest } from './server/ticket/request.ts'
export type { TicketInfo } from './server/ticket/ticket.ts'
export type { CancelOptions, ImageTickets } from './server/ticket/tickets.ts'
export type { BitmapFacts, BitmapHealth, BitmapPlace, ImageFacts } from './source/bitmaps/health.ts'
export { BadBitmapChain } from './source/bitmaps/open-bitmap.ts'
export type { NamedBitmap, NamedBlockNode } from './source/bitmaps/qmp-facts.ts'
export type { CustomExtent, CustomSource } from './source/custom-source.ts'
export type {
  Mapping,
  Source,
  SourceExport,
  SourceFile,
  SourceReader,
  SourceStore,
} from './source/source.ts'
export type { ImageStream, StreamOptions, StreamResult } from './stream/image-stream.ts'
