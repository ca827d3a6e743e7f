/**
 * A record that is made from the images of its point. Everything that others rely on has to follow from the images,
 * from records that name the point as their parent, or from its own name; what does not is left out: the bitmap
 * that began at the point, so that no incremental backup is made over it by mistake.
 */
import { randomBytes } from 'node:crypto'
import { basename } from 'node:path'
import { contentOf, hashImage } from '../../backup/content-hash.ts'
import { requireSound } from '../../backup/verify-content.ts'
import { BackupError } from '../../errors.ts'
import type { Qcow2Header } from '../../format/qcow2/header-fields.ts'
import { openFile } from '../../image/file.ts'
import { lockFile, READING } from '../../image/locks.ts'
import type { ControlOptions } from '../../options.ts'
import { listed, quoted } from '../../text.ts'
import type { MachineFolder } from '../machine-folder.ts'
import { imageName, imageOf, machineDirectory, recordName } from '../names.ts'
import { ownVersion } from '../own-version.ts'
import { modifiedOf } from '../parent-images.ts'
import { type DiskRecord, oldestFirst, type PointRecord } from '../record.ts'

/** A point without a record that can be read. */
export interface LostPoint {
  point: string
  /** File names of its images. */
  images: readonly string[]
}

const MAX_LISTED = 10
/** The name of a point that nobody chose. */
const TIME_NAME = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/

/**
 * Makes the record of a point from its images.
 * @param known the records that there are
 * @throws BackupError BAD_RECORD with what is not known, BAD_IMAGE, IN_USE, UNSUPPORTED, IO, ABORTED
 */
export async function rebuildRecord(
  folder: MachineFolder,
  { point, images }: LostPoint,
  known: readonly PointRecord[],
  control: ControlOptions,
): Promise<PointRecord> {
  const { machine, directory } = folder
  const refuse = (why: string) => new BackupError('BAD_RECORD', path, `cannot be rebuilt: ${why}`)
  const path = `${directory}/${recordName(point)}`
  if (basename(directory) !== machineDirectory(machine)) throw refuse('no record names the machine')
  if (images.length === 0) throw refuse('there is no image of it')
  const names = new Map<string, string>()
  for (const image of images) {
    const name = imageOf(image)?.disk ?? nameOf(image, point, known)
    if (name === undefined) throw refuse(`no record has the name of the disk of ${quoted(image)}`)
    names.set(name, `${directory}/${image}`)
  }
  const time = await timeOf(point, names.values())
  const lost = lostDisks({ point, time }, new Set(names.keys()), known)
  if (lost.length > 0) {
    const list = listed(lost, MAX_LISTED, quoted)
    throw refuse(`it may have had the disks ${list}, of which there is no image`)
  }
  const disks: DiskRecord[] = []
  for (const [name, image] of names) disks.push(await diskOf(image, name, known, control))
  const parents = known.filter((one) => disks.some(({ parent }) => parent === one.point))
  const latest = parents.sort(oldestFirst).at(-1)
  return {
    version: 1,
    machine,
    point,
    id: idOf(point, known) ?? randomBytes(6).toString('hex'),
    ...(latest && { parent: latest.point, parentId: latest.id }),
    time,
    disks,
    versions: { 'qcow2-backup': ownVersion() },
    rebuilt: new Date().toISOString(),
  }
}

/** The name of a disk that is too long for a file's. */
function nameOf(image: string, point: string, known: readonly PointRecord[]): string | undefined {
  const names = known.flatMap(({ disks }) => disks.map(({ name }) => name))
  return names.find((name) => imageName(name, point) === image)
}

async function diskOf(
  path: string,
  name: string,
  known: readonly PointRecord[],
  { signal, onProgress }: ControlOptions,
): Promise<DiskRecord> {
  const file = await openFile(path)
  try {
    lockFile(file.handle, path, READING)
    const header = await requireSound(file, signal)
    const parent = parentOf(path, name, header, known)
    const { checksum, dataBytes, zeroBytes, unchangedBytes } = await hashImage(file, header, {
      signal,
      onProgress,
    })
    return {
      name,
      image: basename(path),
      kind: parent ? 'incremental' : 'full',
      virtualSize: header.virtualSize,
      ...(parent && { parent: parent.point, parentId: parent.id }),
      dataBytes,
      zeroBytes,
      unchangedBytes,
      fileSize: file.size,
      allocatedBytes: file.allocatedBytes,
      modified: await modifiedOf(path),
      ...(contentOf(checksum) as Pick<DiskRecord, 'content'>),
    }
  } finally {
    await file.handle.close()
  }
}

/** @throws BackupError BAD_RECORD */
function parentOf(
  path: string,
  disk: string,
  { backingFile, extensions }: Qcow2Header,
  known: readonly PointRecord[],
): PointRecord | undefined {
  if (backingFile === undefined) return undefined
  const parent = known.find(
    ({ disks, point }) =>
      imageName(disk, point) === backingFile && disks.some(({ name }) => name === disk),
  )
  if (parent && extensions.backingFormat === 'qcow2') return parent
  const why = `builds on ${quoted(backingFile)}, which no record names as an image of the disk`
  throw new BackupError('BAD_RECORD', path, why)
}

/** The instant is the name, or not known: then it was before the first image was complete. */
async function timeOf(point: string, images: Iterable<string>): Promise<string> {
  const [, year, month, day, hour, minute, second] = TIME_NAME.exec(point) ?? []
  const named = new Date(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`)
  if (!Number.isNaN(named.getTime())) return named.toISOString()
  const times: string[] = []
  for (const image of images) times.push(await modifiedOf(image))
  return times.sort()[0]
}

/** Disks that a point had, or may have had: others build on their images, or the points around have them. */
function lostDisks(
  point: Pick<PointRecord, 'point' | 'time'>,
  found: ReadonlySet<string>,
  known: readonly PointRecord[],
): string[] {
  const ordered = [...known].sort(oldestFirst)
  const before = ordered.filter((one) => oldestFirst(one, point) < 0).at(-1)
  const after = ordered.find((one) => oldestFirst(one, point) > 0)
  const [a, b] = [before ?? after, after ?? before].map(
    (one) => new Set(one?.disks.map(({ name }) => name)),
  )
  const wanted = new Set([...a].filter((name) => b.has(name)))
  for (const { name, parent } of known.flatMap(({ disks }) => disks)) {
    if (parent === point.point) wanted.add(name)
  }
  return [...wanted].filter((name) => !found.has(name))
}

/** The id by which the records of later points name this one. */
function idOf(point: string, known: readonly PointRecord[]): string | undefined {
  const ids = known.flatMap(({ disks }) => disks.filter(({ parent }) => parent === point))
  return ids.at(-1)?.parentId
}
