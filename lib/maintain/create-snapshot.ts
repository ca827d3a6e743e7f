import { type Backing, openBacking } from '../backup/backing.ts'
import { requireCapacity } from '../backup/capacity.ts'
import { jobOptions } from '../backup/job-options.ts'
import { corruptNotes } from '../backup/notes.ts'
import { type ManifestPublication, openManifest } from '../backup/publish-manifest.ts'
import type { ImageOptions } from '../backup/types.ts'
import { plannedImageBytes } from '../copy/image-size.ts'
import { copyDisk } from '../copy/job.ts'
import type { Qcow2Format } from '../copy/spec.ts'
import { type Location, locate, movedNotes } from '../copy/target/location.ts'
import { openTarget, publishAll, type Target } from '../copy/target/open-target.ts'
import { Bits } from '../edit/bits.ts'
import { prepareEdit } from '../edit/edited-image.ts'
import { storeBitmaps } from '../edit/store-bitmaps.ts'
import { BackupError, throwIfAborted } from '../errors.ts'
import { MAX_DIRECTORY_ENTRY } from '../format/qcow2/constants.ts'
import { toOpenFile } from '../image/file.ts'
import type { Progress } from '../progress.ts'
import type { BitmapHealth } from '../source/bitmaps/health.ts'
import type { Disk, Mapping } from '../source/source.ts'
import type { OpenOptions } from '../source/source-chain.ts'
import { judgeBitmapChain } from './chain-report.ts'

/** Options of `createSnapshot`. */
export interface SnapshotOptions
  extends Pick<OpenOptions, 'allowPaths' | 'backingFormat'>,
    Pick<ImageOptions, 'clusterSize'> {
  /** Replace an overlay that exists, and make one over a chain that is not healthy. */
  force?: boolean
  /** Ends it until the overlay has its name. */
  signal?: AbortSignal
  /** Called at most ten times a second, and once at the end. */
  onProgress?: (progress: Progress) => void
}

/** Result of `createSnapshot`; sizes in bytes. */
export interface SnapshotResult {
  /** As given; where it is now if that does not lead to it any more, which `notes` say. */
  overlay: string
  /** Bytes. */
  virtualSize: number
  /** The backing file's name as the overlay records it. */
  backing: string
  /** Bitmaps that continue in the overlay. */
  bitmaps: string[]
  /** With `force`, recording bitmaps that end here, with the reason; other caveats. */
  notes: string[]
}

/**
 * Makes an overlay over an image that is no longer written to, so that everything written from now on
 * is in the overlay. Every bitmap that records in the image and is valid along its chain goes on
 * there: an empty one of the same name and granularity (libvirt's rule). Disabled ones do not.
 * @param backing path of a qcow2 image, or raw as `backingFormat` says
 * @param overlay path of the new image, mode 0600; it appears there only when complete and synced
 * @throws BackupError BAD_BITMAP if a recording bitmap is not valid and `force` was not given;
 * TARGET_EXISTS, BAD_TARGET, BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED, IN_USE, USAGE, IO, ABORTED
 */
export async function createSnapshot(
  backing: string,
  overlay: string,
  options: SnapshotOptions = {},
): Promise<SnapshotResult> {
  const location = await locate(overlay)
  let below: Backing
  try {
    const { allowPaths, backingFormat, signal } = options
    below = await openBacking(backing, location, { allowPaths, backingFormat, signal })
  } catch (error) {
    await location.directory.close()
    throw error
  }
  try {
    return await snapshotOver(below, location, options)
  } finally {
    await below.close()
  }
}

/** @param location where the overlay goes, closed in any case */
async function snapshotOver(
  below: Backing,
  location: Location,
  { force = false, clusterSize, signal, onProgress }: SnapshotOptions,
): Promise<SnapshotResult> {
  const { path: backing, files: sources } = below
  let target: Target | undefined
  let manifest: ManifestPublication | undefined
  try {
    const found = await judgeBitmapChain(below.chain, { signal })
    const recording = found.bitmaps.filter(({ images: [top] }) => top.present && top.recording)
    const broken = recording.filter(({ valid }) => !valid)
    if (broken.length > 0 && !force) throw notHealthy(backing, broken)
    const carried = recording.filter(({ valid }) => valid)
    const job = jobOptions('qcow2', below.size, { clusterSize, sharedTables: false }, below)
    target = await openTarget(location, { force, replaces: 'image', sources })
    // The manifest of an image that it replaces is none of the overlay's.
    manifest = await openManifest(target, { wanted: false, force, sources })
    const disk = nothing(backing, below.size)
    if (target.capacity !== undefined) {
      const { format } = job
      const bytes =
        (await plannedImageBytes(disk, format)) + bitmapBytes(below.size, format, carried)
      requireCapacity(target.path, target.capacity, bytes, 'the overlay may need')
    }
    await copyDisk(disk, target, { ...job, signal, onProgress })
    await addBitmaps(target, carried, signal)
    await below.checkUnchanged()
    await manifest?.write(undefined)
    throwIfAborted(signal, location.path)
    const left = await publishAll([manifest ? [manifest, target] : [target]])
    const overlay = await target.located()
    const moved = movedNotes(location.path, overlay, below.name)
    return {
      overlay,
      virtualSize: below.size,
      backing: below.name,
      bitmaps: carried.map(({ name }) => name),
      notes: [
        ...corruptNotes(below.chain.images),
        ...broken.flatMap(({ reasons }) => reasons),
        ...moved,
        ...left,
      ],
    }
  } finally {
    await manifest?.discard()
    await (target ? target.discard() : location.directory.close().catch(() => {}))
  }
}

function notHealthy(backing: string, broken: readonly BitmapHealth[]): BackupError {
  const [first] = broken.flatMap(({ reasons }) => reasons)
  const why = `a bitmap is not valid along its chain: ${first}`
  return new BackupError('BAD_BITMAP', backing, why, { hint: 'force' })
}

/** A disk of which all is left to the backing file. */
function nothing(name: string, size: number): Disk {
  const holes: Mapping[] = size > 0 ? [{ kind: 'hole', start: 0, length: size }] : []
  return {
    name,
    size,
    stores: [],
    async *mappings() {
      yield holes
    },
    async *dirtyMappings() {
      yield holes.map((hole) => ({ ...hole, dirty: false }))
    },
  }
}

/** Maximum bytes of empty bitmaps in an image. */
function bitmapBytes(
  size: number,
  { clusterBits }: Qcow2Format,
  bitmaps: readonly BitmapHealth[],
): number {
  if (bitmaps.length === 0) return 0
  const clusterSize = 2 ** clusterBits
  const clustersOf = (entries: number) => Math.ceil((entries * 8) / clusterSize)
  let clusters = Math.ceil((bitmaps.length * MAX_DIRECTORY_ENTRY) / clusterSize)
  for (const {
    images: [top],
  } of bitmaps) {
    const granules = Math.ceil(size / (top.granularity as number))
    clusters += clustersOf(Math.ceil(granules / 8 / clusterSize))
  }
  // Of refcounts: new blocks, and a table that moves to grow, by half and some entries.
  const blocks = Math.ceil((clusters * 2) / clusterSize) + 1
  const before = size / clusterSize / clusterSize
  const table = clustersOf(1.5 * (before + blocks) + 16)
  return (clusters + blocks + table) * clusterSize
}

/** Adds empty bitmaps that record to an image that has no name yet. */
async function addBitmaps(
  { path, handle }: Target,
  bitmaps: readonly BitmapHealth[],
  signal?: AbortSignal,
): Promise<void> {
  if (bitmaps.length === 0 || !handle) return
  const image = await prepareEdit(await toOpenFile(path, handle), { signal })
  const { virtualSize, clusterSize } = image.header
  const fresh = bitmaps.map(({ name, images: [top] }) => {
    const granularity = top.granularity as number
    const bits = new Bits(virtualSize, granularity, clusterSize)
    return { name, granularityBits: Math.log2(granularity), inUse: false, auto: true, bits }
  })
  await storeBitmaps(image, fresh, { signal })
}
