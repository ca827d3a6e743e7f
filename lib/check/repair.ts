import { CORRUPT, DIRTY, FIELD } from '../format/qcow2/constants.ts'
import { l2EntrySize, makeZero } from '../format/qcow2/entries.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import { readAt } from '../format/read.ts'
import type { OpenFile } from '../image/file.ts'
import type { ImageDisk } from '../image/steps.ts'
import type { ControlOptions } from '../options.ts'
import type { CheckedImage } from './checked-image.ts'
import { checkCopied } from './copied.ts'
import type { Say } from './finding.ts'
import { rebuildRefcounts } from './rebuild.ts'
import { compareRefcounts, type Fix, type RefcountComparison } from './refcount-comparison.ts'
import { type ReferenceSurvey, survey } from './reference-survey.ts'
import { type CheckResult, IO_ERROR, Report } from './report.ts'
import { checkSnapshotTable, encodeSnapshots } from './snapshot-table.ts'
import type { Block } from './stored-refcounts.ts'
import { ImageWriter } from './writer.ts'

/**
 * Repairs the findings of a check (`qemu-img check -r`). Each step is durable before the next begins,
 * and none makes the image worse than it was, so that a repair can be interrupted, and begun again.
 * @param file open for writing
 * @param disk how it is written to; default: its file
 * @throws CheckFailed if it cannot be done
 */
export async function repairQcow2(
  file: OpenFile,
  header: Qcow2Header,
  fix: Fix,
  say: Say,
  control: ControlOptions = {},
  disk?: ImageDisk,
): Promise<CheckResult> {
  const report = new Report(say, file, control)
  const tableReport = new Report(say, file, { signal: control.signal })
  const writer = new ImageWriter(file, header, report, disk)
  const errorsWriter = fix.errors ? writer : undefined
  const table = await checkSnapshotTable(file, header, tableReport, errorsWriter)
  const { snapshots, size } = table
  const checked: CheckedImage = { file, header, snapshots, snapshotsSize: size }

  const repair = new Repair(checked, fix, report, writer)
  const { highest } = await repair.refcounts()
  await repair.copied()
  if (fix.errors && tableReport.result.corruptions > 0) {
    await repair.snapshotTable()
    tableReport.result.corruptionsFixed += tableReport.result.corruptions
    tableReport.result.corruptions = 0
  }
  const { result } = report
  result.imageEndOffset = (highest + 1) * header.clusterSize
  result.corruptions += tableReport.result.corruptions
  result.corruptionsFixed += tableReport.result.corruptionsFixed
  if (result.checkErrors === 0 && result.corruptions === 0) await markClean(header, writer)
  await writer.fillLastCluster()
  return result
}

class Repair {
  #checked: CheckedImage
  #surveyed!: ReferenceSurvey
  readonly #fix: Fix
  readonly #report: Report
  readonly #writer: ImageWriter

  constructor(checked: CheckedImage, fix: Fix, report: Report, writer: ImageWriter) {
    this.#checked = checked
    this.#fix = fix
    this.#report = report
    this.#writer = writer
  }

  /** Repairs refcounts: in place if possible, else by rebuilding all of them. */
  async refcounts(): Promise<RefcountComparison> {
    const report = this.#report
    const writer = this.#fix.errors ? this.#writer : undefined
    this.#surveyed = await survey(this.#checked, report, writer)
    const { stored, counts } = this.#surveyed
    this.#writer.protect(this.#checked, stored)
    await this.#mendEntries()
    const before = { ...report.result }
    const compared = await compareRefcounts(stored, counts, report)
    if (compared.rebuild || this.#surveyed.rebuild) return await this.#rebuild()
    if (report.result.leaks + report.result.corruptions === 0) return compared
    Object.assign(report.result, before)
    return await this.#compare(this.#fix)
  }

  /** Repairs the COPIED flags; with `leaks`, only where everything else is correct. */
  async copied(): Promise<void> {
    const { checkErrors, corruptions, leaks } = this.#report.result
    const safe = this.#fix.errors || checkErrors + corruptions + leaks === 0
    const writer = safe ? this.#writer : undefined
    await checkCopied(this.#checked, this.#surveyed.stored, this.#report, writer)
    await this.#writer.flush()
  }

  /** Rewrites the table of snapshots, into clusters of its own. */
  async snapshotTable(): Promise<void> {
    const { header, snapshots, snapshotsSize } = this.#checked
    const { clusterSize } = header
    const table = encodeSnapshots(snapshots)
    const clusters = Math.ceil(table.length / clusterSize)
    const taken = (cluster: number) => this.#writer.endOfMetadata(cluster)
    const snapshotsOffset = this.#surveyed.counts.allocate(clusters, 0, taken) * clusterSize
    await this.#keep(snapshotsOffset / clusterSize, clusters)
    await this.#writer.write(snapshotsOffset, table)
    await this.#writer.flush()
    const field = Buffer.alloc(12)
    field.writeUInt32BE(snapshots.length)
    field.writeBigUInt64BE(BigInt(snapshotsOffset), 4)
    await this.#writer.write(FIELD.nbSnapshots, field)
    await this.#writer.flush()
    this.#checked = {
      ...this.#checked,
      header: { ...this.#checked.header, snapshotsOffset },
      snapshotsSize: table.length,
    }
    if (await this.#isFree(header.snapshotsOffset, snapshotsSize)) {
      this.#report.say('qcow2_free_clusters failed: Invalid argument')
    }
    // The old table's clusters are leaked now.
    const quiet = new Report(() => {}, this.#checked.file)
    this.#surveyed = await survey(this.#checked, quiet)
    await this.#compare({ leaks: true, errors: false }, quiet)
  }

  /** Whether any cluster of a range counts as free: QEMU then cannot free it, and says so. */
  async #isFree(offset: number, size: number): Promise<boolean> {
    const { stored } = this.#surveyed
    const { clusterSize } = this.#checked.header
    const first = Math.floor(offset / clusterSize)
    for (let cluster = first; cluster * clusterSize < offset + size; cluster++) {
      if (stored.get(cluster) === undefined) await stored.load(cluster)
      if (Number(stored.get(cluster)) === 0) return true
    }
    return false
  }

  async #mendEntries(): Promise<void> {
    const { file, header } = this.#checked
    const size = l2EntrySize(header)
    for (const { table, index } of this.#surveyed.badEntries) {
      if (!this.#writer.isTable(table)) {
        this.#report.say('ERROR: Overlap check failed')
        this.#report.result.checkErrors++
        throw this.#report.failed('an L2 table lies over other metadata', IO_ERROR)
      }
      const at = table + index * size
      const bytes = await readAt(file, at, size)
      makeZero(new DataView(bytes.buffer, bytes.byteOffset, size), 0, header.extendedL2)
      await this.#writer.write(at, bytes)
      this.#report.result.corruptionsFixed++
    }
    await this.#writer.flush()
  }

  /** @param again how often, if that turns out to be needed */
  async #rebuild(again = 2): Promise<RefcountComparison> {
    const report = this.#report
    const { result } = report
    if (!this.#fix.errors) {
      report.say('ERROR need to rebuild refcount structures')
      result.checkErrors++
      throw report.failed('its refcounts need to be rebuilt; check -r all does that', IO_ERROR)
    }
    const before = { ...result }
    report.say('Rebuilding refcount structure')
    await this.#writeAnew()
    result.corruptions = 0
    result.leaks = 0
    this.#surveyed = await survey(this.#checked, report)
    this.#writer.protect(this.#checked, this.#surveyed.stored)
    // The old structures are leaks now, which were not there before and so do not count.
    const saved = { ...result }
    const compared = await this.#compare({ leaks: true, errors: false })
    if (compared.rebuild) {
      // The file has grown, so clusters that were past its end are referenced now.
      if (again > 0) return await this.#rebuild(again - 1)
      report.say('ERROR rebuilt refcount structure is still broken')
    }
    const fresh = result.leaks - saved.leaks
    Object.assign(result, saved)
    result.corruptionsFixed += Math.max(0, before.corruptions - result.corruptions)
    result.leaksFixed += Math.max(0, before.leaks - result.leaks)
    result.leaks += fresh
    return compared
  }

  /** Rebuilds the refcounts, and goes on with the image as it is then. */
  async #writeAnew(): Promise<void> {
    const { file, header } = this.#checked
    const { counts } = this.#surveyed
    const table = await rebuildRefcounts(header, counts, this.#writer, this.#report)
    const { size } = await file.handle.stat()
    this.#checked = {
      ...this.#checked,
      file: { ...file, size: Math.max(file.size, size) },
      header: { ...header, ...table },
    }
  }

  async #compare(fix: Fix, report = this.#report): Promise<RefcountComparison> {
    const { stored, counts } = this.#surveyed
    const write = ({ offset, bytes }: Block) => this.#writer.write(offset, bytes)
    const compared = await compareRefcounts(stored, counts, report, fix, write)
    await this.#writer.flush()
    return compared
  }

  /** Stores the refcounts of clusters that were just allocated. */
  async #keep(first: number, clusters: number): Promise<void> {
    const { stored } = this.#surveyed
    const all = Array.from({ length: clusters }, (_, i) => first + i)
    if (all.some((cluster) => !stored.hasBlock(Math.floor(cluster / stored.perBlock)))) {
      await this.#writeAnew()
      return
    }
    for (const cluster of all) {
      if (stored.get(cluster) === undefined) await stored.load(cluster)
      const { offset, bytes } = stored.set(cluster, 1)
      await this.#writer.write(offset, bytes)
    }
    await this.#writer.flush()
  }
}

/** Nothing is wrong any more, and nobody else writes. */
async function markClean(header: Qcow2Header, writer: ImageWriter): Promise<void> {
  const features = header.incompatibleFeatures & ~(DIRTY | CORRUPT)
  if (features === header.incompatibleFeatures) return
  const field = Buffer.alloc(8)
  field.writeBigUInt64BE(features)
  await writer.write(FIELD.incompatibleFeatures, field)
  await writer.flush()
}
