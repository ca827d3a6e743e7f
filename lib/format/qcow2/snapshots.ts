import type { BackupError } from '../../errors.ts'
import { badImage } from '../../errors.ts'
import { roundUp } from '../../units.ts'
import { type ImageFile, readAt } from '../read.ts'
import { cString, u64 } from './fields.ts'
import type { Qcow2Header } from './header-fields.ts'

/** An internal snapshot: an entry of the snapshot table (spec: "Snapshots"). */
export interface Snapshot {
  /** Where its L1 table is, bytes. */
  l1TableOffset: number
  /** Entries of its L1 table. */
  l1Size: number
  id: string
  name: string
  /** When it was made: seconds since 1970, and nanoseconds. */
  dateSeconds: number
  dateNanoseconds: number
  /** How long the guest had run, nanoseconds. */
  vmClock: bigint
  /** Bytes of the state of the guest that are stored with it. */
  vmStateSize: bigint
  /** Virtual size of the disk then, bytes. */
  diskSize: number
  /** Instructions that the guest had executed, if they were counted. */
  instructions?: bigint
  /** The raw entry, without padding. */
  raw: SnapshotEntry
}

/** The raw parts of an entry. */
export interface SnapshotEntry {
  /** The fixed part of an entry. */
  fixed: Buffer
  extra: Buffer
  id: Buffer
  name: Buffer
}

/** The table of internal snapshots. */
export interface SnapshotTable {
  snapshots: Snapshot[]
  /** Bytes that it takes. */
  size: number
}

/** Receives faults of a snapshot table; the rest of it is then read as far as possible. */
export interface Lenient {
  /** Bytes of extra data of entry `index`; the excess over the limit is left out. */
  tooMuchExtra(index: number, bytes: number): void
  /** The table is too big; entries from `index` on are left out. */
  tooBig(index: number): void
  /** The table goes on past the end of the file; entries from `index` on are left out. */
  pastEnd(index: number): void
}

/** Bytes of an entry before its extra data, id and name. */
const ENTRY_BYTES = 40
/** QEMU's limits: bytes of extra data, and of the table. */
export const MAX_EXTRA_DATA = 1024
const MAX_TABLE_BYTES = 64 * 2 ** 20
/** Maximum end of the table, bytes from its start. */
const MAX_OFFSET = 2 ** 31 - 1
/** Bytes of an id and of a name that QEMU takes notice of. */
const MAX_ID = 127
const MAX_NAME = 255
/**
 * Entries that may lie past the end of the file, where they read as zero. A file that was cut off may
 * lack a few; larger claims are false, and would cost as much as if they were true.
 */
const MAX_PAST_END = 64
/** Bytes that are read at a time. */
const PART = 256 * 1024
/** The count of instructions of a guest that counted none. */
const NOT_COUNTED = 2n ** 64n - 1n

/**
 * The internal snapshots of an image, in their order. Bytes past the end of the file read as
 * zero, as in QEMU, but no more than a few entries.
 * @throws BackupError BAD_IMAGE, IO
 */
export async function readSnapshots(file: ImageFile, header: Qcow2Header): Promise<Snapshot[]> {
  return (await readSnapshotTable(file, header)).snapshots
}

/**
 * Like `readSnapshots`, with the size of the table.
 * @param lenient instead of an error
 * @throws BackupError BAD_IMAGE, IO
 */
export async function readSnapshotTable(
  file: ImageFile,
  header: Qcow2Header,
  lenient?: Lenient,
): Promise<SnapshotTable> {
  const snapshots: Snapshot[] = []
  const bytes = partsOf(file, header.snapshotsOffset)
  let at = 0
  let size = 0
  /** Bytes of an entry whose extra data is cut to the limit. */
  let lawful = 0
  let pastEnd = 0
  for (let index = 0; index < header.nbSnapshots; index++) {
    at = roundUp(at, 8)
    if (header.snapshotsOffset + at >= file.size && ++pastEnd > MAX_PAST_END) {
      if (!lenient) throw endless(file.path)
      lenient.pastEnd(index)
      break
    }
    const fixed = await bytes(at, ENTRY_BYTES)
    const extraSize = fixed.readUInt32BE(36)
    const kept = Math.min(extraSize, MAX_EXTRA_DATA)
    if (kept < extraSize) {
      if (!lenient) throw tooMuchExtra(file.path, index, extraSize)
      lenient.tooMuchExtra(index, extraSize)
    }
    const extra = await bytes(at + ENTRY_BYTES, kept)
    const idAt = at + ENTRY_BYTES + extraSize
    const id = await bytes(idAt, fixed.readUInt16BE(12))
    const name = await bytes(idAt + id.length, fixed.readUInt16BE(14))
    at = idAt + id.length + name.length
    lawful = roundUp(lawful, 8) + ENTRY_BYTES + kept + id.length + name.length
    if (lawful > MAX_TABLE_BYTES || at > MAX_OFFSET) {
      if (!lenient) throw tooBig(file.path, header.nbSnapshots - index)
      lenient.tooBig(index)
      break
    }
    size = at
    snapshots.push(decodeSnapshot({ fixed, extra, id, name }, header))
  }
  return { snapshots, size }
}

/** Reads a table a part at a time; returned buffers do not change. */
function partsOf(file: ImageFile, offset: number): (at: number, length: number) => Promise<Buffer> {
  let part: Buffer = Buffer.alloc(0)
  /** Bytes from the start of the table. */
  let start = 0
  return async (at, length) => {
    if (at + length > start + part.length) {
      start = at
      // No more than there is: an image may claim a table of any size.
      const inFile = Math.max(0, Math.min(PART, file.size - offset - start))
      part = await readAt(file, offset + start, Math.max(length, inFile))
    }
    return part.subarray(at - start, at - start + length)
  }
}

function endless(path: string): BackupError {
  return badImage(path, 'its snapshot table continues past the end of the file')
}

function tooMuchExtra(path: string, index: number, bytes: number): BackupError {
  return badImage(
    path,
    `snapshot ${index} has ${bytes} bytes of extra data, more than ${MAX_EXTRA_DATA}`,
    `Too much extra metadata in snapshot table entry ${index}\n` +
      'You can force-remove this extra metadata with qemu-img check -r all',
  )
}

function tooBig(path: string, left: number): BackupError {
  return badImage(
    path,
    'snapshot table is too big',
    'Snapshot table is too big\n' +
      `You can force-remove all ${left} overhanging snapshots with qemu-img check -r all`,
  )
}

function decodeSnapshot(
  raw: SnapshotEntry,
  { virtualSize }: Pick<Qcow2Header, 'virtualSize'>,
): Snapshot {
  const { fixed, extra, id, name } = raw
  const instructions = extra.length >= 24 ? extra.readBigUInt64BE(16) : NOT_COUNTED
  return {
    l1TableOffset: u64(fixed, 0),
    l1Size: fixed.readUInt32BE(8),
    id: cString(id.subarray(0, MAX_ID)),
    name: cString(name.subarray(0, MAX_NAME)),
    dateSeconds: fixed.readUInt32BE(16),
    dateNanoseconds: fixed.readUInt32BE(20),
    vmClock: fixed.readBigUInt64BE(24),
    vmStateSize: extra.length >= 8 ? extra.readBigUInt64BE(0) : BigInt(fixed.readUInt32BE(32)),
    diskSize: extra.length >= 16 ? u64(extra, 8) : virtualSize,
    instructions: instructions === NOT_COUNTED ? undefined : instructions,
    raw,
  }
}
