import { restore } from '../backup/restore.ts'
import type { CopyResult, RestoreOptions } from '../backup/types.ts'
import { argumentError, BackupError, throwIfAborted } from '../errors.ts'
import { listed, quoted } from '../text.ts'
import { copySmall, makeDirectory } from './files.ts'
import type { MachineFolder } from './machine-folder.ts'
import { definitionName, diskFile } from './names.ts'
import { MAX_CHAIN, ParentImages } from './parent-images.ts'
import type { DiskRecord, PointRecord } from './record.ts'
import type { Repository } from './repository.ts'

/** Options of `restoreMachine`. */
export interface RestoreMachineOptions
  extends Omit<RestoreOptions, 'snapshot' | 'bitmap' | 'format'> {
  /** Default: the latest. */
  point?: string
  /** Only this disk, by its name in the machine. */
  disk?: string
}

/** Result of `restoreMachine`. */
export interface RestoreMachineResult {
  machine: string
  point: string
  disks: (CopyResult & { name: string })[]
  /** Path of the machine's definition, where there is one and all disks are restored into a directory. */
  definition?: string
}

const MAX_LISTED = 10
/** Bytes. libvirt's own limit for XML. */
const MAX_DEFINITION = 10 * 2 ** 20

/**
 * Restores a point in time of a machine.
 * @param target of one disk, a path as `restore` takes it; of several a directory, which is made unless it is
 * there, and gets a file for each disk, and the machine's definition
 * @throws BackupError BAD_IMAGE if an image is not as it was recorded, or another one's parent is not that on
 * which it was made; USAGE, IO, BAD_RECORD; as `restore`
 */
export async function restorePoint(
  repository: Repository,
  machine: string,
  target: string,
  { point, disk, ...options }: RestoreMachineOptions = {},
): Promise<RestoreMachineResult> {
  const folder = repository.machine(machine)
  const record = await findPoint(repository, machine, point)
  const images = record.disks.filter(({ name }) => disk === undefined || name === disk)
  if (images.length === 0) {
    const names = listed(record.disks, MAX_LISTED, ({ name }) => quoted(name))
    const why = `${machine} at ${record.point} has no disk ${quoted(disk ?? '')}; it has ${names || 'none'}`
    throw argumentError('disk', why)
  }
  await requireRecorded(folder, record, images, options.signal)
  const result: RestoreMachineResult = { machine, point: record.point, disks: [] }
  if (images.length === 1) {
    const [{ name, image }] = images
    const copy = await restore(`${folder.directory}/${image}`, target, options)
    return { ...result, disks: [{ name, ...copy }] }
  }
  await makeDirectory(target)
  for (const { name, image } of images) {
    const path = `${target}/${diskFile(name, options.outputFormat ?? 'raw')}`
    result.disks.push({ name, ...(await restore(`${folder.directory}/${image}`, path, options)) })
  }
  const definition = definitionName(record.point)
  const [from, to] = [`${folder.directory}/${definition}`, `${target}/${definition}`]
  const { force } = options
  if (await copySmall(from, to, { most: MAX_DEFINITION, force })) result.definition = to
  return result
}

/**
 * Other images would be restored as well as those that were made, and nobody would know.
 * @throws BackupError BAD_IMAGE, BAD_RECORD, UNSUPPORTED, IO, ABORTED
 */
async function requireRecorded(
  folder: MachineFolder,
  point: PointRecord,
  disks: readonly DiskRecord[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const images = new ParentImages(folder, await ancestorsOf(folder, point, signal), signal)
  for (const disk of disks) {
    // A new image has one more than those that it may be made over.
    const fault = await images.fault({ point, disk }, MAX_CHAIN + 1)
    if (fault === undefined) continue
    const what = `${folder.machine}@${point.point}, disk ${disk.name}`
    const why = `${fault}; restore another point, or its image by its path, unchecked`
    throw new BackupError('BAD_IMAGE', what, why)
  }
}

/** A point and those that its images build on. Only these: the record of another may be broken. */
async function ancestorsOf(
  folder: MachineFolder,
  point: PointRecord,
  signal: AbortSignal | undefined,
): Promise<PointRecord[]> {
  const known = new Map([[point.point, point]])
  const sought = [point]
  for (const { disks } of sought) {
    for (const { parent } of disks) {
      if (parent === undefined || known.has(parent)) continue
      throwIfAborted(signal, folder.directory)
      const record = await folder.point(parent)
      if (!record) continue
      known.set(parent, record)
      sought.push(record)
    }
  }
  return sought
}

/** @throws BackupError USAGE if there is no such point; IO, BAD_RECORD */
async function findPoint(
  repository: Repository,
  machine: string,
  point: string | undefined,
): Promise<PointRecord> {
  const folder = repository.machine(machine)
  const record = point === undefined ? (await folder.points()).at(-1) : await folder.point(point)
  if (record) return record
  if (point !== undefined && (await folder.hasPoints())) {
    throw new BackupError('USAGE', `${machine}@${point}`, 'there is no such point')
  }
  const names = listed(await repository.machines(), MAX_LISTED, quoted)
  const why = `${repository.directory} has no such machine; it has ${names || 'none'}`
  throw new BackupError('USAGE', machine, why)
}
