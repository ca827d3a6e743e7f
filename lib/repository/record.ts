import type { ContentHash } from '../backup/types.ts'
import { BackupError } from '../errors.ts'
import { choice, list, type Rule, record, TEXT, whole } from '../schema.ts'
import { quoted } from '../text.ts'
import { recordName } from './names.ts'

/** A disk of a point in time, in a record. */
export interface DiskRecord {
  name: string
  /** File name of the image, without a directory. */
  image: string
  kind: 'full' | 'incremental'
  /** Why it is full where an incremental one was asked for or possible before. */
  reason?: string
  /** Bytes. */
  virtualSize: number
  /** The point whose image is this one's backing file, and its id: by that it is recognised. */
  parent?: string
  parentId?: string
  /** The bitmap that began at this point; missing where the disk has none. Granularity: bytes. */
  bitmap?: { name: string; granularity: number }
  /** Guest bytes. */
  dataBytes: number
  zeroBytes: number
  unchangedBytes: number
  /** Of the image, bytes. */
  fileSize: number
  allocatedBytes: number
  /** When the image was last written to, ISO 8601: it is not to be written to again. */
  modified: string
  /** Of what was read from the disk. */
  content: ContentHash
}

/** A point in time of a machine, as `REPO/MACHINE/POINT.json` records it. */
export interface PointRecord {
  /** Of this format. */
  version: 1
  machine: string
  point: string
  /** Id of the run that made it, random: a parent is recognised by it, not by its name. */
  id: string
  /** Name and id of the latest point that an image of this one builds on. */
  parent?: string
  parentId?: string
  /** The instant, ISO 8601. */
  time: string
  disks: DiskRecord[]
  /** Names and versions of the programs that made it. */
  versions: Record<string, string>
}

/** The order of points; those of the same instant by their names. */
export function oldestFirst(
  a: Pick<PointRecord, 'time' | 'point'>,
  b: Pick<PointRecord, 'time' | 'point'>,
): number {
  return Date.parse(a.time) - Date.parse(b.time) || (a.point < b.point ? -1 : 1)
}

/** No record is larger, bytes: thousands of disks. */
export const MAX_RECORD_BYTES = 4 * 2 ** 20

const BYTES = whole(0)
/** Of another directory no image is ever opened, whatever a record says. */
const FILE_NAME: Rule<string> = {
  ...TEXT,
  fault(value) {
    const fault = TEXT.fault(value)
    if (fault !== undefined) return fault
    return /^[^./][^/]*$/.test(value as string) ? undefined : 'is not the name of a file'
  },
}
const TIME: Rule<string> = {
  ...TEXT,
  fault(value) {
    const time = typeof value === 'string' ? Date.parse(value) : Number.NaN
    return Number.isNaN(time) ? 'is not a time' : undefined
  },
}

const DISK = record<DiskRecord>(
  {
    name: TEXT,
    image: FILE_NAME,
    kind: choice('full', 'incremental'),
    virtualSize: BYTES,
    dataBytes: BYTES,
    zeroBytes: BYTES,
    unchangedBytes: BYTES,
    fileSize: BYTES,
    allocatedBytes: BYTES,
    modified: TIME,
    content: record(
      { algorithm: choice('blake2b-256'), blockSize: BYTES, checksum: TEXT },
      {},
      { open: true },
    ),
  },
  {
    reason: TEXT,
    parent: FILE_NAME,
    parentId: TEXT,
    bitmap: record({ name: TEXT, granularity: whole(512) }, {}, { open: true }),
  },
  { open: true },
)

/** Fields that are not known are another version's, and nothing to this one. */
const POINT = record<PointRecord>(
  {
    version: whole(1, 1),
    machine: TEXT,
    point: FILE_NAME,
    id: TEXT,
    time: TIME,
    disks: list(DISK),
  },
  { parent: FILE_NAME, parentId: TEXT },
  { open: true },
)

/**
 * Checks what was read for a point's record.
 * @param path as messages name it
 * @throws BackupError BAD_RECORD; UNSUPPORTED if it is of a later version
 */
export function requireRecord(
  path: string,
  value: unknown,
  { machine, point }: Pick<PointRecord, 'machine' | 'point'>,
): PointRecord {
  const { version } = (value ?? {}) as Partial<Record<string, unknown>>
  if (Number.isInteger(version) && (version as number) > 1) {
    const why = `is a record of version ${version}, which needs a newer version of this program`
    throw new BackupError('UNSUPPORTED', path, why)
  }
  const fault = POINT.fault(value)
  if (fault !== undefined) throw badRecord(path, fault)
  const found = value as PointRecord
  if (found.machine !== machine) throw badRecord(path, `it is of machine ${quoted(found.machine)}`)
  if (found.point !== point) throw badRecord(path, `it is of ${quoted(recordName(found.point))}`)
  const twice = found.disks.find(
    (disk, i) => found.disks.findIndex((one) => one.name === disk.name) !== i,
  )
  if (twice) throw badRecord(path, `it has two disks ${quoted(twice.name)}`)
  const lost = found.disks.find(
    ({ kind, parent, parentId }) =>
      (kind === 'incremental') !== (parent !== undefined && parentId !== undefined),
  )
  if (lost)
    throw badRecord(
      path,
      `disk ${quoted(lost.name)} is ${lost.kind} and ${lost.parent === undefined ? 'has no' : 'has a'} parent`,
    )
  return found
}

function badRecord(path: string, fault: string): BackupError {
  return new BackupError('BAD_RECORD', path, `is not the record of a point in time: ${fault}`)
}
