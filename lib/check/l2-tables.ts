import { hostOffset } from '../format/qcow2/entries.ts'
import { readAt, readInto } from '../format/read.ts'
import type { OpenFile } from '../image/file.ts'

/** Bytes of an L1 table, and of L2 tables, that are read at once. */
const PART = 64 * 1024
const AHEAD = 2 ** 20

/** Where an L1 table is. */
export interface L1Table {
  /** Bytes. */
  offset: number
  entries: number
}

/** An L2 table, as an entry of an L1 table names it. */
export interface NamedTable {
  /** Index of the entry in the L1 table. */
  index: number
  /** The part of the L1 table that has the entry, at byte `at`. */
  l1: DataView
  at: number
  offset: number
  /** It was not to be read. */
  leftOut: boolean
  /** Its content; undefined if it was not read, or reading it failed. */
  l2: DataView | undefined
}

/**
 * The L2 tables that an L1 table names, each as often as it does, in order and in batches: an L1 table may
 * name one for all of a disk. A few are read ahead, each once in a batch.
 * Bytes past the end of the file read as zero, as in QEMU.
 * What is in a batch holds until the next one is asked for.
 * @param leaveOut offsets of tables that need not be read; may change between batches
 */
export async function* l2Tables(
  file: OpenFile,
  clusterSize: number,
  { offset, entries }: L1Table,
  leaveOut: ReadonlySet<number>,
): AsyncGenerator<NamedTable[], void> {
  const end = Math.min(offset + entries * 8, file.size)
  const buffers: Buffer[] = []
  for (let from = offset; from < end; from += PART) {
    const l1 = view(await readAt(file, from, Math.min(PART, offset + entries * 8 - from)))
    for (let at = 0; at < l1.byteLength; ) {
      const batch: NamedTable[] = []
      const wanted = new Map<number, Buffer>()
      for (let bytes = 0; at < l1.byteLength && bytes < AHEAD; at += 8) {
        if (l1.getUint32(at) === 0 && l1.getUint32(at + 4) === 0) continue
        const table = hostOffset(l1, at)
        const leftOut = leaveOut.has(table)
        const index = (from - offset + at) / 8
        batch.push({ index, l1, at, offset: table, leftOut, l2: undefined })
        if (leftOut) continue
        bytes += clusterSize
        if (wanted.has(table)) continue
        buffers[wanted.size] ??= Buffer.alloc(clusterSize)
        wanted.set(table, buffers[wanted.size])
      }
      const read = await readAll(file, wanted)
      for (const named of batch) if (!named.leftOut) named.l2 = read.get(named.offset)
      if (batch.length > 0) yield batch
    }
  }
}

async function readAll(
  file: OpenFile,
  wanted: ReadonlyMap<number, Buffer>,
): Promise<Map<number, DataView | undefined>> {
  const read = [...wanted].map(async ([offset, buffer]) => {
    return [offset, await readInto(buffer, file, offset).then(view, () => undefined)] as const
  })
  return new Map(await Promise.all(read))
}

function view(bytes: Buffer): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
}
