import { hashImage } from '../../backup/content-hash.ts'
import { jobOptions } from '../../backup/job-options.ts'
import { openWritten, requireSound } from '../../backup/verify-content.ts'
import { surveyPlan } from '../../copy/image-size.ts'
import { copyDisk } from '../../copy/job.ts'
import type { Compression, HashedLayer, RecordedBacking } from '../../copy/spec.ts'
import { locate } from '../../copy/target/location.ts'
import { openTarget, type Target } from '../../copy/target/open-target.ts'
import { BackupError, unsupported } from '../../errors.ts'
import { SUBCLUSTERS } from '../../format/qcow2/constants.ts'
import type { Qcow2Header } from '../../format/qcow2/header-fields.ts'
import { readHeader } from '../../format/qcow2/qcow2-image.ts'
import { type OpenFile, openFile, requireUnchanged } from '../../image/file.ts'
import type { ChainImage } from '../../image/image-chain.ts'
import { lockFile, READING } from '../../image/locks.ts'
import type { CopyCounters } from '../../native.ts'
import type { CopyOptions } from '../../options.ts'
import type { Progress } from '../../progress.ts'
import { ownLayer } from '../../source/own-layer.ts'
import type { Disk } from '../../source/source.ts'
import { closeAll, layersOf } from '../../source/source-chain.ts'
import { endsInside, upperLayers } from '../../source/upper-layers.ts'
import type { DiskAt } from '../lineage.ts'
import { imageName } from '../names.ts'
import { metadataFault } from '../parent-images.ts'
import type { DiskRecord } from '../record.ts'
import type { Join } from './plan.ts'

/** How images are read and written. */
export type JoinOptions = Omit<CopyOptions, 'force' | 'onProgress'>

/** Images that are hashed as they are copied, at most: each holds memory for some MiB of its data. */
const MAX_HASHED = 4

/** An image that is as its record says, as far as its metadata tell. */
interface RecordedImage {
  disk: DiskRecord
  file: OpenFile
  header: Qcow2Header
}

/** The images of a join, open, and what the new one will be. */
export interface OpenJoin {
  /** All that is read. */
  images: RecordedImage[]
  /** Those of them whose hash is taken from what is read for the new one, as layers of the disk. */
  hashed: Map<RecordedImage, HashedLayer>
  disk: Disk
  clusterSize: number
  compress?: Compression['type']
  backing?: RecordedBacking
  /**
   * Bytes that the new image takes, at most: as if nothing turned out to be zero. What compression saves
   * is taken from the old ones.
   */
  bytes: number
  close(): Promise<void>
}

/**
 * Opens the images of a join.
 * @param directory of the machine
 * @throws BackupError BAD_IMAGE if one is not as it was recorded; UNSUPPORTED, IN_USE, IO, ABORTED
 */
export async function openJoin(
  directory: string,
  { disk: { name }, chain, upper }: Join,
  signal?: AbortSignal,
): Promise<OpenJoin> {
  const images: RecordedImage[] = []
  const open = async (some: readonly DiskAt[]) => {
    for (const { disk } of some) images.push(await openRecorded(directory, disk))
  }
  const close = () => closeAll(images.map(({ file }) => file))
  try {
    await open(chain.slice(0, upper))
    const [{ file, header }] = images
    requireOnlyBackup(file.path, header)
    const { clusterSize, virtualSize: size } = header
    const over = chain.at(upper)
    if (over && endsInside(clusterSize, images.map(bordersOf), over.disk.virtualSize)) {
      await open(chain.slice(upper))
    }
    const backing = over && {
      name: imageName(name, over.point.point),
      format: 'qcow2',
      size: over.disk.virtualSize,
    }
    const layered = images.map(chainImageOf)
    const files = images.map((image) => image.file)
    const layers = () => layersOf(layered).layers
    const disk = upperLayers({ name: file.path, size, layers, upper, files, signal })
    const { bytes, stores } = await surveyPlan(disk, {
      clusterBits: Math.log2(clusterSize),
      backing,
    })
    // Lower images may turn out not to be read.
    const read = images.filter((_, i) => i < upper || stores.has(i))
    const compress = images.map((_, i) => stores.get(i)).find((type) => type !== undefined)
    const before = read.reduce((sum, image) => sum + image.file.size, 0)
    const most = compress === undefined ? bytes : Math.min(bytes, before)
    const hashed = layersToHash(images.slice(0, upper))
    return { images: read, hashed, disk, clusterSize, compress, backing, bytes: most, close }
  } catch (error) {
    await close()
    throw error
  }
}

/** An image that has no name yet, and what was written to it. */
export interface NewImage extends CopyCounters {
  target: Target
}

/**
 * Makes the image of a join. All that is read is compared with its recorded hash before the new image can get a
 * name: what has rotted must not get a hash that fits it.
 * @param path of the new image, a temporary name
 * @param step called for each thing that is done with how many guest bytes; makes its `onProgress`
 * @throws BackupError DIFFERENT, BAD_IMAGE, IO, ABORTED; nothing is left then
 */
export async function makeImage(
  { images, hashed, disk, clusterSize, compress, backing }: OpenJoin,
  path: string,
  options: JoinOptions,
  step: (size: number) => ((progress: Progress) => void) | undefined,
): Promise<NewImage> {
  const files = images.map(({ file }) => file)
  for (const image of images) {
    if (hashed.has(image)) continue
    const onProgress = step(image.header.virtualSize)
    const { checksum } = await hashImage(image.file, image.header, { ...options, onProgress })
    requireContent(image, checksum)
  }
  // Messages name the image that is to be replaced: nobody else sees the temporary name.
  const location = { ...(await locate(path)), path: files[0].path }
  const target = await openTarget(location, { replaces: 'image', sources: files })
  try {
    const onProgress = scaled(step, disk.size, 1 + hashed.size)
    const given = { ...options, clusterSize, compress, onProgress }
    const job = jobOptions('qcow2', disk.size, given, backing)
    const layers = [...hashed.values()]
    const counters = await copyDisk(disk, target, { ...job, hash: true, layers })
    for (const [i, image] of [...hashed.keys()].entries()) {
      requireContent(image, counters.layerChecksums?.[i])
    }
    await requireUnchanged(files)
    await requireSound(await openWritten(target), options.signal)
    return { target, ...counters }
  } catch (error) {
    await target.discard()
    throw error
  }
}

async function openRecorded(directory: string, disk: DiskRecord): Promise<RecordedImage> {
  const path = `${directory}/${disk.image}`
  const file = await openFile(path)
  try {
    lockFile(file.handle, path, READING)
    const fault = await metadataFault(file, disk)
    if (fault !== undefined) throw new BackupError('BAD_IMAGE', path, fault)
    const header = await readHeader(file)
    if (header.externalDataFile) throw unsupported(path, 'its content is in another file')
    return { disk, file, header }
  } catch (error) {
    await file.handle.close()
    throw error
  }
}

/** @throws BackupError UNSUPPORTED if the image has what the new one would not have */
function requireOnlyBackup(path: string, { extensions, nbSnapshots }: Qcow2Header): void {
  if (!extensions.bitmaps && nbSnapshots === 0) return
  throw unsupported(
    path,
    'has bitmaps or internal snapshots, which no backup has and which would be lost',
  )
}

/**
 * Which of the upper images need not be read on their own to be hashed: the largest, if their clusters are those of
 * the new image, so that none of theirs is read in part.
 */
function layersToHash(upper: readonly RecordedImage[]): Map<RecordedImage, HashedLayer> {
  const [top] = upper
  const isAlike = ({ header: { clusterSize, virtualSize, extendedL2 } }: RecordedImage) =>
    clusterSize === top.header.clusterSize && virtualSize === top.header.virtualSize && !extendedL2
  if (!upper.every(isAlike)) return new Map()
  const largest = [...upper].sort((a, b) => b.file.size - a.file.size).slice(0, MAX_HASHED)
  return new Map(
    largest.map((image) => {
      const { file, header } = image
      const store = upper.indexOf(image)
      const hasBacking = Boolean(header.backingFile)
      return [image, { store, own: ownLayer(file, header), hasBacking }]
    }),
  )
}

/** The progress of something that is as much work as so many of its size. */
function scaled(
  step: (size: number) => ((progress: Progress) => void) | undefined,
  size: number,
  times: number,
): ((progress: Progress) => void) | undefined {
  const report = step(size * times)
  return report && ((progress) => report({ ...progress, position: progress.position * times }))
}

/** @throws BackupError DIFFERENT */
function requireContent({ disk, file }: RecordedImage, checksum: string | undefined): void {
  if (checksum === disk.content.checksum) return
  const why = 'holds other content than recorded; nothing that builds on it is changed'
  throw new BackupError('DIFFERENT', file.path, why)
}

function bordersOf({ header: { virtualSize, clusterSize, extendedL2 } }: RecordedImage) {
  return { size: virtualSize, unit: extendedL2 ? clusterSize / SUBCLUSTERS : clusterSize }
}

function chainImageOf({ file, header }: RecordedImage): ChainImage {
  return { path: file.path, format: 'qcow2', size: header.virtualSize, file, header }
}
