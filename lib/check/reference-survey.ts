import type { BackupError } from '../errors.ts'
import { isSoundEntry } from '../format/qcow2/bitmap-data.ts'
import { type Bitmap, readBitmaps } from '../format/qcow2/bitmaps.ts'
import { MAX_L1_BYTES, SECTOR_SIZE } from '../format/qcow2/constants.ts'
import { hostOffset } from '../format/qcow2/entries.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { alternate } from '../format/qcow2/refcount-table.ts'
import type { Snapshot } from '../format/qcow2/snapshots.ts'
import { END_OF_FILES } from '../format/qcow2/validate.ts'
import { FileWindow } from '../format/read.ts'
import type { OpenFile } from '../image/file.ts'
import { roundUp } from '../units.ts'
import type { CheckedImage } from './checked-image.ts'
import { ReferenceCounts } from './reference-counts.ts'
import { INVALID, type Report, TOO_LARGE } from './report.ts'
import { StoredRefcounts } from './stored-refcounts.ts'
import { type BadEntry, Walk } from './walk.ts'
import type { ImageWriter } from './writer.ts'

/** An image whose references were counted. */
export interface ReferenceSurvey {
  counts: ReferenceCounts
  stored: StoredRefcounts
  /** The refcounts cannot be repaired in place. */
  rebuild: boolean
  /** Entries of L2 tables that can be repaired one by one. */
  badEntries: readonly BadEntry[]
  /** Each active entry that names a cluster has the COPIED flag. */
  allCopied: boolean
}

/** The maximum of clusters that QEMU checks. */
const MAX_CLUSTERS = 2 ** 31 - 1

/**
 * Counts the references of all that an image has: its header, mapping tables, snapshots, refcount
 * structures, keys and bitmaps, in QEMU's order.
 * @param writer extends the file to the offsets of its refcount blocks, if given
 * @throws CheckFailed
 */
export async function survey(
  checked: CheckedImage,
  report: Report,
  writer?: ImageWriter,
): Promise<ReferenceSurvey> {
  const { file, header, snapshots, snapshotsSize } = checked
  const { clusterSize } = header
  const fileSize = roundUp(file.size, SECTOR_SIZE)
  if (Math.ceil(fileSize / clusterSize) > MAX_CLUSTERS) {
    report.result.checkErrors++
    throw report.failed('has too many clusters to be checked', TOO_LARGE)
  }
  report.result.totalClusters = Math.ceil(header.virtualSize / clusterSize)
  const stored = await StoredRefcounts.open(file, header, (text) => report.corrupt(text))
  const counts = new ReferenceCounts(header, fileSize, report)
  const walk = new Walk(file, header, counts, report, writer !== undefined)

  counts.add(0, clusterSize)
  await walk.l1({ offset: header.l1TableOffset, entries: header.l1Size }, true)
  if (header.externalDataFile && snapshots.length > 0) {
    report.corruption(`ERROR ${snapshots.length} snapshots in image with data file`)
  }
  for (const snapshot of snapshots) await countSnapshot(snapshot, header, walk, report)
  counts.add(header.snapshotsOffset, snapshotsSize)
  counts.add(header.refcountTableOffset, header.refcountTableClusters * clusterSize)
  const { luks } = header.extensions
  if (luks) counts.add(luks.offset, luks.length)
  await countBitmaps(file, header, counts, report)
  const rebuild = await countBlocks(stored, header, counts, report, writer)
  return { counts, stored, rebuild, badEntries: walk.badEntries, allCopied: walk.allCopied }
}

async function countSnapshot(
  { id, name, l1TableOffset, l1Size, raw }: Snapshot,
  { clusterSize }: Qcow2Header,
  walk: Walk,
  report: Report,
): Promise<void> {
  const what = `ERROR snapshot ${id} (${name})`
  const corrupted = 'snapshot table entry corrupted'
  if (l1TableOffset % clusterSize !== 0) {
    const where = `l1_offset=0x${raw.fixed.readBigUInt64BE().toString(16)}`
    report.corruption(`${what} ${where}: L1 table is not cluster aligned; ${corrupted}`)
  } else if (l1Size > MAX_L1_BYTES / 8) {
    report.corruption(`${what} l1_size=${alternate(l1Size)}: L1 table is too large; ${corrupted}`)
  } else {
    await walk.l1({ offset: l1TableOffset, entries: l1Size }, false)
  }
}

async function countBitmaps(
  file: OpenFile,
  header: Qcow2Header,
  counts: ReferenceCounts,
  report: Report,
): Promise<void> {
  const bitmaps = await readBitmaps(file, header)
  if (bitmaps.length === 0) return
  const { directoryOffset, directorySize } = header.extensions.bitmaps!
  counts.add(directoryOffset, directorySize)
  const window = new FileWindow(file)
  for (const bitmap of bitmaps) await countBitmap(bitmap, window, header, counts, report)
}

async function countBitmap(
  { tableOffset, tableSize }: Bitmap,
  window: FileWindow,
  { clusterSize }: Qcow2Header,
  counts: ReferenceCounts,
  report: Report,
): Promise<void> {
  counts.add(tableOffset, tableSize * 8)
  report.work(tableSize * 8)
  const inFile = roundUp(Math.max(0, window.file.size - tableOffset), 8)
  const bytes = await window.read(tableOffset, Math.min(tableSize * 8, inFile))
  for (let at = 0; at < bytes.length; at += 8) {
    const pause = report.step()
    if (pause) await pause
    if (isSoundEntry(bytes, at, clusterSize)) continue
    report.result.corruptions++
    throw report.failed('the table of a bitmap has an invalid entry', INVALID)
  }
  const table = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  for (let at = 0; at < table.byteLength; at += 8) {
    const pause = report.step()
    if (pause) await pause
    const offset = hostOffset(table, at)
    if (offset !== 0) counts.add(offset, clusterSize)
  }
}

/** @returns whether the refcounts cannot be repaired in place */
async function countBlocks(
  stored: StoredRefcounts,
  { clusterSize }: Qcow2Header,
  counts: ReferenceCounts,
  report: Report,
  writer: ImageWriter | undefined,
): Promise<boolean> {
  let rebuild = false
  const broken = (line: string) => {
    report.corruption(line)
    rebuild = true
  }
  for (let index = 0; index < stored.stored; index++) {
    const pause = report.step()
    if (pause) await pause
    const { offset, aligned, reserved } = stored.entry(index)
    const cluster = Math.floor(offset / clusterSize)
    if (reserved) {
      broken(`ERROR refcount table entry ${index} has reserved bits set`)
    } else if (!aligned) {
      const what = 'is not cluster aligned; refcount table entry corrupted'
      broken(`ERROR refcount block ${index} ${what}`)
    } else if (cluster >= counts.clusters) {
      const what = writer ? 'Repairing' : 'ERROR'
      report.corruption(`${what} refcount block ${index} is outside image`)
      if (!writer) continue
      if (await reachTo(offset + clusterSize, clusterSize, writer, report)) {
        report.result.corruptions--
        report.result.corruptionsFixed++
        counts.grow(offset + clusterSize)
        counts.add(offset, clusterSize)
      } else {
        rebuild = true
      }
    } else if (offset !== 0) {
      counts.add(offset, clusterSize)
      const count = counts.get(cluster)
      if (count !== 1) broken(`ERROR refcount block ${index} refcount=${count}`)
    }
  }
  return rebuild
}

/** @returns whether the file now reaches to there */
async function reachTo(
  size: number,
  clusterSize: number,
  writer: ImageWriter,
  report: Report,
): Promise<boolean> {
  let why: BackupError | undefined = report.failed('invalid argument', INVALID)
  if (size < END_OF_FILES) {
    // More clusters than are checked are as good as too many for the file system.
    const tooLarge = size / clusterSize > MAX_CLUSTERS
    why = tooLarge ? report.failed('file too large', TOO_LARGE) : await writer.growTo(size)
    if (why === undefined) return true
    report.message('Could not resize file', why)
  }
  report.say('ERROR could not resize image', why)
  return false
}
