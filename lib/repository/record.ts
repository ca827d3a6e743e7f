import type { ContentHash } from '../backup/types.ts'
import { BackupError } from '../errors.ts'
import { choice, described, dictionary, list, record, TEXT, whole } from '../schema.ts'
import { quoted } from '../text.ts'
import { FILE_NAME, type Form, requireForm, TIME } from './form.ts'
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
  /** When the record was made from the images, ISO 8601, as the one of the run was lost. */
  rebuilt?: string
}

/** The order of points; those of the same instant by their names. */
export function oldestFirst(
  a: Pick<PointRecord, 'time' | 'point'>,
  b: Pick<PointRecord, 'time' | 'point'>,
): number {
  return Date.parse(a.time) - Date.parse(b.time) || (a.point < b.point ? -1 : 1)
}

const BYTES = whole(0)

const CONTENT = record<ContentHash>(
  {
    algorithm: choice('blake2b-256'),
    blockSize: described(BYTES, 'Bytes of a block of the disk that is hashed by itself.'),
    checksum: described(TEXT, 'Hash of the hashes of the blocks, hexadecimal.'),
  },
  {},
  { open: true },
)

const BITMAP = record<DiskRecord['bitmap']>(
  { name: TEXT, granularity: described(whole(512), 'Bytes that one bit stands for.') },
  {},
  { open: true },
)

const DISK = record<DiskRecord>(
  {
    name: described(TEXT, 'Of the disk in the machine.'),
    image: described(FILE_NAME, 'The file, in the directory of the record.'),
    kind: choice('full', 'incremental'),
    virtualSize: described(BYTES, 'Size of the disk.'),
    dataBytes: described(BYTES, 'Guest bytes that the image stores as data.'),
    zeroBytes: described(BYTES, 'Guest bytes that it stores as zero, or leaves to read as zero.'),
    unchangedBytes: described(BYTES, 'Guest bytes that it leaves to its backing file.'),
    fileSize: described(BYTES, 'Length of the file.'),
    allocatedBytes: described(BYTES, 'Blocks of the file when it was made, bytes.'),
    modified: described(TIME, 'When the file was last written to.'),
    content: described(CONTENT, 'Hash of what the image itself holds: see verifying.md.'),
  },
  {
    reason: described(TEXT, 'Why it is full, or how it was possible without a bitmap.'),
    parent: described(FILE_NAME, 'The point whose image of the disk is the backing file.'),
    parentId: described(TEXT, 'The id of that point. Both are there if the kind is incremental.'),
    bitmap: described(BITMAP, 'The dirty bitmap of the disk that began at this point.'),
  },
  { open: true },
)

export const POINT: Form<PointRecord> = {
  what: 'the record of a point in time',
  version: 'version',
  most: 4 * 2 ** 20,
  rule: record<PointRecord>(
    {
      version: whole(1, 1),
      machine: described(TEXT, 'As the hypervisor calls it, or as it was called for the backup.'),
      point: described(FILE_NAME, 'Name of the point, and of the file up to .json.'),
      id: described(TEXT, 'Of the run that made it, random.'),
      time: described(TIME, 'The instant.'),
      disks: list(DISK),
      versions: described(dictionary(TEXT), 'Of the programs that made it, by their names.'),
    },
    {
      parent: described(FILE_NAME, 'The latest point on which an image of this one builds.'),
      parentId: described(TEXT, 'The id of that point.'),
      rebuilt: described(TIME, 'When it was made from the images, as the one of the run was lost.'),
    },
    { open: true },
  ),
}

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
  const found = requireForm(path, value, POINT)
  if (found.machine !== machine) throw badRecord(path, `it is of machine ${quoted(found.machine)}`)
  if (found.point !== point) throw badRecord(path, `it is of ${quoted(recordName(found.point))}`)
  const seen = new Set<string>()
  for (const { name, image, kind, parent, parentId } of found.disks) {
    if (seen.has(name)) throw badRecord(path, `it has two disks ${quoted(name)}`)
    if (seen.has(`/${image}`)) throw badRecord(path, `it has ${quoted(image)} for two disks`)
    seen.add(name).add(`/${image}`)
    const isComplete = parent !== undefined && parentId !== undefined
    if ((kind === 'incremental') === isComplete) continue
    const which = isComplete ? 'has a' : 'lacks a'
    throw badRecord(path, `disk ${quoted(name)} is ${kind} and ${which} parent`)
  }
  return found
}

function badRecord(path: string, fault: string): BackupError {
  return new BackupError('BAD_RECORD', path, `is not ${POINT.what}: ${fault}`)
}
