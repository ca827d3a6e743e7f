import { BackupError } from '../errors.ts'
import { FIELD, MAX_SNAPSHOTS } from '../format/qcow2/constants.ts'
import type { Qcow2Header } from '../format/qcow2/header-fields.ts'
import {
  MAX_EXTRA_DATA,
  readSnapshotTable,
  type Snapshot,
  type SnapshotTable,
} from '../format/qcow2/snapshots.ts'
import type { OpenFile } from '../image/file.ts'
import { roundUp } from '../units.ts'
import { INVALID, type Report, TOO_LARGE } from './report.ts'
import type { ImageWriter } from './writer.ts'

/** Bytes of extra data that every entry of version 3 has: sizes of the guest's state and disk. */
const NEEDED_EXTRA = 16
/** Bytes of extra data that are known: those, and the instructions. */
const KNOWN_EXTRA = 24
const NOT_COUNTED = 2n ** 64n - 1n

/**
 * Reads the snapshots of an image, and reports faults of their table.
 * @param writer if given, repairs faults that would prevent reading the table
 * @throws CheckFailed
 */
export async function checkSnapshotTable(
  file: OpenFile,
  header: Qcow2Header,
  report: Report,
  writer?: ImageWriter,
): Promise<SnapshotTable> {
  const { nbSnapshots } = header
  const kept = writer ? Math.min(nbSnapshots, MAX_SNAPSHOTS) : nbSnapshots
  if (kept < nbSnapshots) report.say(`DiscardAfterCopy ${nbSnapshots - kept} overhanging snapshots`)
  requirePlace(header, kept, report)
  const table = await readTable(file, { ...header, nbSnapshots: kept }, report, writer)
  const dropped = nbSnapshots - table.snapshots.length
  if (writer && dropped > 0) {
    const count = Buffer.alloc(4)
    count.writeUInt32BE(table.snapshots.length)
    await writer.write(FIELD.nbSnapshots, count)
    await writer.flush()
    report.result.corruptionsFixed += dropped
  }
  if (header.version >= 3) {
    for (const [i, { raw }] of table.snapshots.entries()) {
      if (raw.extra.length >= NEEDED_EXTRA) continue
      const what = writer ? 'Repairing' : 'ERROR'
      report.corruption(`${what} snapshot table entry ${i} is incomplete`)
    }
  }
  return table
}

function requirePlace(header: Qcow2Header, count: number, report: Report): void {
  const failed = (what: string, qemu: string) => {
    report.result.checkErrors++
    report.message(`ERROR snapshot table ${what}`)
    if (count > MAX_SNAPSHOTS) report.say(forced(count - MAX_SNAPSHOTS))
    return report.failed(`snapshot table ${what}`, qemu)
  }
  if (count > MAX_SNAPSHOTS) throw failed('too large', TOO_LARGE)
  if (header.snapshotsOffset % header.clusterSize !== 0) throw failed('offset invalid', INVALID)
}

function forced(count: number): string {
  return `You can force-remove all ${count} overhanging snapshots with qemu-img check -r all`
}

async function readTable(
  file: OpenFile,
  header: Qcow2Header,
  report: Report,
  writer: ImageWriter | undefined,
): Promise<SnapshotTable> {
  const lenient = writer && {
    tooMuchExtra(index: number, bytes: number) {
      const what = `DiscardAfterCopy too much extra metadata in snapshot table entry ${index}`
      report.corruption(`${what} (${bytes} > ${MAX_EXTRA_DATA})`)
    },
    tooBig(index: number) {
      const count = header.nbSnapshots - index
      report.say(`DiscardAfterCopy ${count} overhanging snapshots (snapshot table is too big)`)
    },
    pastEnd(index: number) {
      const count = header.nbSnapshots - index
      report.say(`DiscardAfterCopy ${count} overhanging snapshots (past the end of the file)`)
    },
  }
  try {
    return await readSnapshotTable(file, header, lenient)
  } catch (error) {
    if (!(error instanceof BackupError)) throw error
    report.result.checkErrors++
    report.message('ERROR failed to read the snapshot table', error)
    throw report.failed(error.why, TOO_LARGE, error)
  }
}

/** A table that holds the snapshots whole, as it is written. */
export function encodeSnapshots(snapshots: readonly Snapshot[]): Buffer {
  const parts: Buffer[] = []
  let size = 0
  for (const snapshot of snapshots) {
    const padding = Buffer.alloc(roundUp(size, 8) - size)
    const entry = encodeSnapshot(snapshot)
    parts.push(padding, entry)
    size += padding.length + entry.length
  }
  return Buffer.concat(parts)
}

function encodeSnapshot({ raw, vmStateSize, diskSize, instructions }: Snapshot): Buffer {
  const fixed = Buffer.from(raw.fixed)
  const known = Buffer.alloc(KNOWN_EXTRA)
  known.writeBigUInt64BE(vmStateSize)
  // The raw value, even if larger than a safe integer.
  if (raw.extra.length >= NEEDED_EXTRA) raw.extra.copy(known, 8, 8, NEEDED_EXTRA)
  else known.writeBigUInt64BE(BigInt(diskSize), 8)
  known.writeBigUInt64BE(instructions ?? NOT_COUNTED, 16)
  const extra = Buffer.concat([known, raw.extra.subarray(KNOWN_EXTRA)])
  // Whether the entry fits follows from the extra data alone.
  fixed.writeUInt32BE(vmStateSize <= 0xffffffffn ? Number(vmStateSize) : 0, 32)
  fixed.writeUInt32BE(extra.length, 36)
  return Buffer.concat([fixed, extra, raw.id, raw.name])
}
