import {
  clusterType,
  hexEntry,
  hostOffset,
  isCopied,
  l2EntrySize,
  setCopied,
} from '../format/qcow2/entries.ts'
import type { Refcount } from '../format/qcow2/refcounts.ts'
import type { CheckedImage } from './checked-image.ts'
import { l2Tables, type NamedTable } from './l2-tables.ts'
import { IO_ERROR, type Report } from './report.ts'
import { type StoredRefcounts, Unreadable } from './stored-refcounts.ts'
import type { ImageWriter } from './writer.ts'

/**
 * Compares the COPIED flag of each entry of the active tables with its refcount: it is to be set
 * where that is exactly one (spec: "Cluster mapping"), or a write would change a snapshot, too.
 * @param writer repairs the flags, if given
 * @throws CheckFailed
 */
export async function checkCopied(
  { file, header }: CheckedImage,
  stored: StoredRefcounts,
  report: Report,
  writer?: ImageWriter,
): Promise<void> {
  const { clusterSize, externalDataFile } = header
  const { result } = report
  const size = l2EntrySize(header)
  const what = writer ? 'Repairing' : 'ERROR'
  const l1 = { offset: header.l1TableOffset, entries: header.l1Size }
  /** Offsets of tables without clusters, which may be shared by all of a disk. */
  const empty = new Set<number>()
  const loaded = async (cluster: number): Promise<Refcount | Unreadable> => {
    await stored.load(cluster)
    return stored.get(cluster)!
  }
  for await (const batch of l2Tables(file, clusterSize, l1, empty)) {
    for (const named of batch) {
      if (named.offset === 0) continue
      if (!named.leftOut) report.table(clusterSize)
      const cluster = Math.floor(named.offset / clusterSize)
      const refcount = stored.get(cluster) ?? (await loaded(cluster))
      // The read error was reported before.
      if (refcount instanceof Unreadable) continue
      if (isWrong(named.l1, named.at, refcount)) await l1Entry(named, refcount)
      if (!named.leftOut) await table(named)
    }
  }

  async function l1Entry({ index, l1: part, at }: NamedTable, refcount: Refcount): Promise<void> {
    const shown = hexEntry(part, at)
    report.say(
      `${what} OFLAG_COPIED L2 cluster: l1_index=${index} l1_entry=${shown} refcount=${refcount}`,
    )
    if (writer) {
      setCopied(part, at, refcount === 1)
      await writer.write(l1.offset + index * 8, bytesOf(part).subarray(at, at + 8))
    }
    count(1)
  }

  async function table({ offset, l2 }: NamedTable): Promise<void> {
    if (l2 === undefined) {
      const failed = report.failed('an L2 table cannot be read', IO_ERROR)
      report.say('ERROR: Could not read L2 table', failed)
      result.checkErrors++
      throw failed
    }
    let changed = 0
    let clusters = 0
    for (let at = 0; at < l2.byteLength; at += size) {
      const pause = report.step()
      if (pause) await pause
      if (l2.getUint32(at) === 0 && l2.getUint32(at + 4) === 0) continue
      const type = clusterType(l2, at, header)
      if (type !== 'data' && type !== 'zero+host') continue
      clusters++
      const host = Math.floor(hostOffset(l2, at) / clusterSize)
      const refcount = externalDataFile ? 1 : (stored.get(host) ?? (await loaded(host)))
      if (refcount instanceof Unreadable || !isWrong(l2, at, refcount)) continue
      const shown = hexEntry(l2, at)
      report.say(`${what} OFLAG_COPIED data cluster: l2_entry=${shown} refcount=${refcount}`)
      if (writer) setCopied(l2, at, refcount === 1)
      changed++
    }
    if (writer && changed > 0) await writer.writeTable(offset, bytesOf(l2))
    count(changed)
    if (clusters === 0) empty.add(offset)
  }

  function count(entries: number): void {
    if (writer) result.corruptionsFixed += entries
    else result.corruptions += entries
  }
}

function isWrong(table: DataView, at: number, refcount: Refcount): boolean {
  return (refcount === 1) !== isCopied(table, at)
}

function bytesOf({ buffer, byteOffset, byteLength }: DataView): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength)
}
