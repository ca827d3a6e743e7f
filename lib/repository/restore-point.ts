import { basename } from 'node:path'
import { type Manifest, manifestOf } from '../backup/manifest.ts'
import { type ContentRecords, prepareRestore } from '../backup/restore.ts'
import { type CopySession, openSession, publishSessions } from '../backup/session.ts'
import { TotalProgress } from '../backup/total-progress.ts'
import type { CopyResult, RestoreOptions } from '../backup/types.ts'
import type { Target } from '../copy/target/open-target.ts'
import { argumentError, BackupError, ioError } from '../errors.ts'
import { rmdir, stat } from '../files.ts'
import { isImageUrl } from '../imageio/client/address.ts'
import { isNbdUri } from '../nbd/uri.ts'
import { listed, quoted } from '../text.ts'
import { stageDefinition } from './definition.ts'
import { makeDirectory } from './files.ts'
import { ancestorsOf, findPoint } from './find-point.ts'
import type { MachineFolder } from './machine-folder.ts'
import { diskFile, imageName } from './names.ts'
import { MAX_CHAIN, ParentImages } from './parent-images.ts'
import type { DiskRecord, PointRecord } from './record.ts'
import type { Repository } from './repository.ts'

/** Options of `restoreMachine`. */
export interface RestoreMachineOptions
  extends Omit<RestoreOptions, 'snapshot' | 'bitmap' | 'format' | 'verify'> {
  /** Default: the latest. */
  point?: string
  /** Only this disk, by its name in the machine. */
  disk?: string
  /**
   * Compare the content of images with the hashes in their records. Default: of a full image while it is
   * read, of a chain image by image before it is read. True: each image is also checked before. False: nothing
   * is compared but sizes and names.
   */
  verify?: boolean
}

/** Result of `restoreMachine`. */
export interface RestoreMachineResult {
  machine: string
  point: string
  /** All that was read was compared with the records. */
  verified: boolean
  disks: (CopyResult & { name: string })[]
  /** Path of the machine's definition, where there is one and all disks are restored into a directory. */
  definition?: string
}

const MAX_LISTED = 10

/**
 * Restores a point in time of a machine.
 * @param target of one disk, a path as `restore` takes it; of several a directory, which is made unless it is
 * there, and gets a file for each disk, and the machine's definition
 * @throws BackupError BAD_IMAGE if an image is not the one that was recorded, DIFFERENT if its content is not,
 * USAGE, IO, BAD_RECORD; as `restore`. Files then are as before
 */
export async function restorePoint(
  repository: Repository,
  machine: string,
  target: string,
  options: RestoreMachineOptions = {},
): Promise<RestoreMachineResult> {
  const { point, disk, signal, onProgress } = options
  const folder = repository.machine(machine)
  const lock = await folder.readLock({ signal, onProgress })
  try {
    const record = await findPoint(repository, machine, point)
    const disks = chosenDisks(record, disk)
    const points = await ancestorsOf(folder, record, signal)
    await requireRecorded(folder, record, disks, points, signal)
    const into = await directoryFor(record, disks, target)
    const isMade = into !== undefined && (await makeDirectory(into))
    try {
      const { disk: _1, point: _2, ...copy } = options
      return await restoreDisks({ folder, record, points, disks }, { target, into }, copy)
    } catch (error) {
      if (isMade) await rmdir(into).catch(() => {})
      throw error
    }
  } finally {
    await lock.release()
  }
}

/** Copies all disks, and publishes them together, with the definition if all of them go into a directory. */
async function restoreDisks(
  {
    folder,
    record,
    points,
    disks,
  }: {
    folder: MachineFolder
    record: PointRecord
    points: readonly PointRecord[]
    disks: readonly DiskRecord[]
  },
  { target, into }: { target: string; into?: string },
  options: RestoreOptions,
): Promise<RestoreMachineResult> {
  const { outputFormat = 'raw', verify, force } = options
  const records = recordsOf(points)
  const phase = verify === false ? 'copy' : 'verify'
  const sizes = disks.map(({ name, virtualSize: size }) => ({ name, size, phase }) as const)
  const progress = new TotalProgress(sizes, options.onProgress, ['verify', 'copy'])
  const sessions: CopySession[] = []
  const noted: ((result: CopyResult) => CopyResult)[] = []
  let definition: Target | undefined
  try {
    for (const { name, image } of disks) {
      const to = into === undefined ? target : `${into}/${diskFile(name, outputFormat)}`
      const own = { ...options, onProgress: progress.of(name) }
      const prepared = prepareRestore(`${folder.directory}/${image}`, to, own, records)
      noted.push(prepared.noted)
      sessions.push(await openSession(prepared.request))
    }
    if (into !== undefined && disks.length === record.disks.length) {
      definition = await stageDefinition(folder, record.point, into, { force })
    }
    for (const session of sessions) await session.copy()
    const results = await publishSessions(sessions, definition ? [definition] : [])
    progress.tell()
    return {
      machine: folder.machine,
      point: record.point,
      verified: verify !== false,
      disks: results.map((result, i) => ({ name: disks[i].name, ...noted[i](result) })),
      ...(definition && { definition: definition.path }),
    }
  } finally {
    for (const session of sessions) await session.discard()
    await definition?.discard()
  }
}

/** @throws BackupError USAGE */
function chosenDisks({ machine, point, disks }: PointRecord, disk?: string): DiskRecord[] {
  const chosen = disks.filter(({ name }) => disk === undefined || name === disk)
  if (chosen.length > 0) return chosen
  const why = `${machine} at ${point} has no disk ${quoted(disk ?? '')}; it has ${namesOf(disks)}`
  throw argumentError('disk', why)
}

/**
 * The directory that gets the disks; undefined if the target is the disk.
 * @throws BackupError USAGE if the target can take only one
 */
async function directoryFor(
  { machine, point }: PointRecord,
  disks: readonly DiskRecord[],
  target: string,
): Promise<string | undefined> {
  const only = (what: string) => {
    const why = `${machine} at ${point} has ${disks.length} disks, and ${what}; name one of ${namesOf(disks)}`
    return argumentError('disk', why)
  }
  if (isNbdUri(target) || isImageUrl(target)) {
    if (disks.length === 1) return undefined
    throw only('what a server has takes one')
  }
  const standing = await stat(target).catch((error) => {
    if (error.code === 'ENOENT') return undefined
    throw ioError(target, error)
  })
  if (disks.length === 1 && !standing?.isDirectory() && !target.endsWith('/')) return undefined
  if (standing && !standing.isDirectory()) throw only(`${target} is no directory`)
  return target.replace(/(?<=.)\/+$/, '')
}

function namesOf(disks: readonly DiskRecord[]): string {
  return listed(disks, MAX_LISTED, ({ name }) => quoted(name)) || 'none'
}

/** What is recorded of each image's content, as a manifest beside it would have it. */
function recordsOf(points: readonly PointRecord[]): ContentRecords {
  const manifests = new Map<string, Manifest>()
  for (const { disks } of points) {
    for (const { name, image, parent, ...written } of disks) {
      const backingFile = parent === undefined ? undefined : imageName(name, parent)
      manifests.set(image, manifestOf(image, written, { backingFile }))
    }
  }
  return { of: async (image) => manifests.get(basename(image)), ofChains: true }
}

/**
 * Other images would be restored as well as those that were made, and nobody would know.
 * @throws BackupError BAD_IMAGE, BAD_RECORD, UNSUPPORTED, IO, ABORTED
 */
export async function requireRecorded(
  folder: MachineFolder,
  point: PointRecord,
  disks: readonly DiskRecord[],
  points: readonly PointRecord[],
  signal: AbortSignal | undefined,
): Promise<void> {
  // Content is compared when it is read.
  const images = new ParentImages(folder, points, { signal, content: false })
  for (const disk of disks) {
    // A new image has one more than those that it may be made over.
    const fault = await images.fault({ point, disk }, MAX_CHAIN + 1)
    if (fault === undefined) continue
    const what = `${folder.machine}@${point.point}, disk ${disk.name}`
    const why = `${fault}; restore another point, or its image by its path, unchecked`
    throw new BackupError('BAD_IMAGE', what, why)
  }
}
