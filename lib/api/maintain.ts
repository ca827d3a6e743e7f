import type { CommitOptions as Commit, CommitResult } from '../maintain/commit/commit.ts'
import type { SnapshotOptions, SnapshotResult } from '../maintain/create-snapshot.ts'
import type {
  DiffOptions as Diff,
  DiffDisksOptions as DiffDisks,
  Differences,
  DiffResult,
} from '../maintain/diff/diff.ts'
import type { RebaseOptions as Rebase, RebaseResult } from '../maintain/rebase/rebase.ts'
import {
  CHAIN_OPTIONS,
  CLUSTER_SIZE_OPTIONS,
  CONTROL_OPTIONS,
  type ControlOptions,
  FORCE_OPTIONS,
  FORMAT,
  GRANULARITY_OPTIONS,
  NBD_OPTIONS,
  RATE_OPTIONS,
  SHARE_OPTIONS,
} from '../options.ts'
import {
  BOOLEAN,
  callback,
  checkArgument,
  checkOptions,
  choice,
  either,
  option,
  ownArgument,
  PATH,
  record,
  type SchemaFor,
  TEXT,
} from '../schema.ts'
import { Call } from './call.ts'
import { TARGET } from './rules.ts'

export const SNAPSHOT_OPTIONS: SchemaFor<SnapshotOptions> = {
  ...CLUSTER_SIZE_OPTIONS,
  ...CHAIN_OPTIONS,
  ...FORCE_OPTIONS,
  ...CONTROL_OPTIONS,
}

/** How overlays are committed. */
export type CommitOptions = Omit<Commit, 'disk'>

export const COMMIT_OPTIONS: SchemaFor<CommitOptions> = {
  base: option(PATH, 'the image of the chain that gets the data', {
    value: 'image',
    fallback: 'the one below TOP',
  }),
  delete: option(BOOLEAN, 'remove the committed images once the result is durable'),
  ...CHAIN_OPTIONS,
  ...RATE_OPTIONS,
  ...CONTROL_OPTIONS,
}

/** What an image is to build on. */
export interface NewBacking {
  /** Its name as the image records it: relative to the directory of the image. */
  file: string
  /** Recorded too. */
  format: 'raw' | 'qcow2'
}

/** How an image comes to build on another backing file. */
export type RebaseOptions = Omit<Rebase, 'disk' | 'format'>

const REBASE_OPTIONS: SchemaFor<RebaseOptions> = {
  unsafe: option(BOOLEAN, 'change only the name'),
  ...CHAIN_OPTIONS,
  ...SHARE_OPTIONS,
  warn: option(callback(), 'takes what qemu-img prints about an image that it opens all the same'),
  ...CONTROL_OPTIONS,
}

const NEW_BACKING = either(
  "neither a backing file with its format nor 'none'",
  record<NewBacking>({ file: PATH, format: FORMAT }),
  choice('none'),
)

/** How an image is compared with a baseline. */
export type DiffOptions = Omit<Diff, 'onProgress'> & ControlOptions
/** How two disks are compared. */
export type DiffDisksOptions = Omit<DiffDisks, 'onProgress'> & ControlOptions

const COMPARE_OPTIONS = {
  ...GRANULARITY_OPTIONS,
  format: option(FORMAT, 'the format of IMAGE', {
    letter: 'f',
    value: 'format',
    fallback: 'by its magic',
  }),
  baselineFormat: option(FORMAT, 'the format of BASELINE', {
    value: 'format',
    fallback: 'by its magic',
  }),
  ...CHAIN_OPTIONS,
  ...NBD_OPTIONS,
  ...CONTROL_OPTIONS,
} as const

export const DIFF_OPTIONS: SchemaFor<DiffOptions> = {
  ...COMPARE_OPTIONS,
  granularity: {
    ...GRANULARITY_OPTIONS.granularity,
    fallback: 'of a new bitmap the cluster size, 4K to 64K, else 64K',
  },
  enable: option(BOOLEAN, 'let the new bitmap record what is written from now on'),
}

export const DIFF_DISKS_OPTIONS: SchemaFor<DiffDisksOptions> = {
  bitmap: option(TEXT, 'the bitmap of that image to merge into'),
  output: option(TARGET, 'write the differences to a new file, as JSON', { value: 'file' }),
  force: option(BOOLEAN, 'replace an output file that exists'),
  mergeInto: option(PATH, 'merge the differences into a bitmap of another image', {
    value: 'image',
  }),
  take: option(callback(), 'takes the differences'),
  ...COMPARE_OPTIONS,
}

/**
 * Makes an overlay over an image that is no longer written to, so that later writes go
 * to the overlay. Every bitmap that records in the image and is valid along its chain continues in
 * the overlay.
 * @param backing path of the image, qcow2, or raw as `backingFormat` says
 * @param overlay path of the qcow2 image to make
 * @throws BackupError BAD_BITMAP if a bitmap that records is not valid; TARGET_EXISTS, BAD_TARGET,
 * BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED, IN_USE, IO, USAGE, ABORTED, CALLBACK
 */
export async function createSnapshot(
  backing: string,
  overlay: string,
  options: SnapshotOptions = {},
): Promise<SnapshotResult> {
  checkArgument('backing', PATH, backing)
  checkArgument('overlay', TARGET, overlay)
  const checked = checkOptions(SNAPSHOT_OPTIONS, options)
  const { createSnapshot: run } = await import('../maintain/create-snapshot.ts')
  const call = new Call(overlay, checked.signal)
  const onProgress = call.callback('onProgress', checked.onProgress)
  return await call.run(async () =>
    call.noted(await run(backing, overlay, { ...checked, onProgress })),
  )
}

/**
 * Commits the data and bitmaps of the images above a base into the base. Bitmaps that the base
 * lacks are created, then all are merged. An interrupted commit leaves a base that is sound, and can
 * be run again.
 * @param top path of the topmost image, which nobody has open
 * @throws BackupError BAD_BITMAP, BAD_IMAGE, BAD_TARGET, UNSUPPORTED, NOT_ALLOWED, IN_USE, IO, USAGE,
 * ABORTED, CALLBACK
 */
export async function commitImage(top: string, options: CommitOptions = {}): Promise<CommitResult> {
  checkArgument('top', PATH, top)
  const checked = checkOptions(COMMIT_OPTIONS, options)
  const call = new Call(top, checked.signal)
  const onProgress = call.callback('onProgress', checked.onProgress)
  const { commitImage: run } = await import('../maintain/commit/commit.ts')
  return await call.run(async () => call.noted(await run(top, { ...checked, onProgress })))
}

/**
 * Lets an image build on another backing file, or on none, as `qemu-img rebase` does.
 * @param image path of a qcow2 image, which nobody else has open
 * @param backing `none`: it builds on nothing
 * @throws QemuImgError if an image cannot be opened; BackupError BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED,
 * IN_USE, IO, USAGE, ABORTED: the guest then sees what it saw
 */
export async function rebaseImage(
  image: string,
  backing: NewBacking | 'none',
  options: RebaseOptions = {},
): Promise<RebaseResult> {
  checkArgument('image', PATH, image)
  const own = ownArgument('backing', NEW_BACKING, backing)
  const checked = checkOptions(REBASE_OPTIONS, options)
  const call = new Call(image, checked.signal)
  const onProgress = call.callback('onProgress', checked.onProgress)
  const warn = call.callback('warn', checked.warn)
  const { rebaseImage: run } = await import('../maintain/rebase/rebase.ts')
  return await call.run(() =>
    run(image, own === 'none' ? undefined : own, { ...checked, warn, onProgress }),
  )
}

/**
 * Adds a bitmap to an image, dirty where its guest content differs from a baseline: for a
 * chain of backups that lost its bitmap, or never had one.
 * @param image path of a qcow2 image of version 3, which no other process may use meanwhile
 * @param baseline path of a raw or qcow2 image, or the URI of an NBD export
 * @param bitmap the name of the bitmap to add
 * @throws BackupError BAD_BITMAP if the bitmap is there already or cannot be; BAD_IMAGE, UNSUPPORTED,
 * NOT_ALLOWED, IN_USE, IO, USAGE, ABORTED, CALLBACK: the image is then unchanged
 */
export async function diffToBitmap(
  image: string,
  baseline: string,
  bitmap: string,
  options: DiffOptions = {},
): Promise<DiffResult> {
  checkArgument('image', PATH, image)
  checkArgument('baseline', PATH, baseline)
  checkArgument('bitmap', TEXT, bitmap)
  const checked = checkOptions(DIFF_OPTIONS, options)
  const call = new Call(image, checked.signal)
  const onProgress = call.positions('compare', checked.onProgress)
  const { diffToBitmap: run } = await import('../maintain/diff/diff.ts')
  return await call.run(() => run(image, baseline, bitmap, { ...checked, onProgress }))
}

/**
 * Finds the granules in which the guest sees something else in one disk than in another: such as a
 * point in time of a running machine, that QEMU exports, and its last backup.
 * @param disk path of a raw or qcow2 image, or the URI of an NBD export
 * @param baseline the same
 * @throws BackupError as diffToBitmap; CALLBACK also if `take` throws
 */
export async function diffDisks(
  disk: string,
  baseline: string,
  options: DiffDisksOptions = {},
): Promise<Differences> {
  checkArgument('disk', PATH, disk)
  checkArgument('baseline', PATH, baseline)
  const checked = checkOptions(DIFF_DISKS_OPTIONS, options)
  const call = new Call(disk, checked.signal)
  const onProgress = call.positions('compare', checked.onProgress)
  const { diffDisks: run } = await import('../maintain/diff/diff.ts')
  const take = checked.take && call.taker('take', checked.take)
  return await call.run(() => run(disk, baseline, { ...checked, take, onProgress }))
}
