import { randomBytes } from 'node:crypto'
import { contentOf } from '../../backup/content-hash.ts'
import { publishAll } from '../../copy/target/open-target.ts'
import { BackupError, ioError } from '../../errors.ts'
import { statfs } from '../../files.ts'
import type { CopyOptions } from '../../options.ts'
import type { Progress } from '../../progress.ts'
import { formatSize } from '../../units.ts'
import type { Lineage } from '../lineage.ts'
import type { LockedMachine } from '../locked-machine.ts'
import { modifiedOf } from '../parent-images.ts'
import { temporaryImage } from '../prune-journal.ts'
import { type DiskRecord, oldestFirst, type PointRecord } from '../record.ts'
import { makeImage, type NewImage, type OpenJoin, openJoin } from './join.ts'
import type { Join } from './plan.ts'
import type { PreparedGroup } from './prepare.ts'

/** Room for the journal and the records, bytes. */
const SLACK = 2 ** 20

/**
 * Removes a group of points.
 * @param lineage of all points of the machine
 * @param step see makeImage
 * @returns what images are now, by the records that they had
 * @throws BackupError; as long as it has not written the journal, all points are as they were then
 */
export async function runGroup(
  folder: LockedMachine,
  lineage: Lineage,
  { remove, joins, files }: PreparedGroup,
  { onProgress, ...options }: CopyOptions,
  step: (size: number) => ((progress: Progress) => void) | undefined,
): Promise<Map<DiskRecord, DiskRecord>> {
  const run = randomBytes(6).toString('hex')
  const temporary = ({ disk }: Join) => `${folder.directory}/${temporaryImage(disk.image, run)}`
  const opened: OpenJoin[] = []
  const made = new Map<Join, NewImage>()
  try {
    for (const join of joins) {
      opened.push(await openJoin(folder.directory, join, options.signal))
    }
    if (joins.length > 0) await requireSpace(folder.directory, opened)
    for (const [i, join] of joins.entries()) {
      made.set(join, await makeImage(opened[i], temporary(join), options, step))
    }
    await publishAll([...made.values()].map(({ target }) => [target]))
    const now = new Map<DiskRecord, DiskRecord>()
    for (const [join, image] of made) {
      now.set(join.disk, await recordOf(join, image, temporary(join)))
    }
    const points = [...new Set(joins.map(({ point }) => point))]
    await folder.prune(
      {
        version: 1,
        run,
        images: joins.map(({ disk }) => disk.image),
        records: points.map((point) => recordWith(point, now, lineage)),
        remove: remove.map((point) => ({ point: point.point, files: files.get(point)! })),
      },
      { signal: options.signal, onProgress },
    )
    return now
  } finally {
    for (const { target } of made.values()) await target.discard()
    // Locked until now: nobody writes to an image that is about to be replaced.
    for (const one of opened) await one.close()
  }
}

/** @throws BackupError IO, ENOSPC */
async function requireSpace(directory: string, joins: readonly OpenJoin[]): Promise<void> {
  const needed = joins.reduce((sum, { bytes }) => sum + bytes, SLACK)
  const { bavail, bsize } = await statfs(directory).catch((error) => {
    throw ioError(directory, error)
  })
  const free = bavail * bsize
  if (free >= needed) return
  const why = `the images that are to be made need ${formatSize(needed)}, and ${formatSize(free)} are free`
  throw new BackupError('IO', directory, why, { errno: 'ENOSPC' })
}

/** @param path where the new image is */
async function recordOf(
  { disk: { parent: _1, parentId: _2, reason, ...disk }, chain, upper }: Join,
  { target, dataBytes, zeroBytes, unchangedBytes, checksum }: NewImage,
  path: string,
): Promise<DiskRecord> {
  const over = chain.at(upper)?.point
  const [kind, why] = over
    ? (['incremental', reason] as const)
    : (['full', 'the points that it was made over were removed'] as const)
  return {
    ...disk,
    kind,
    ...(why !== undefined && { reason: why }),
    ...(over && { parent: over.point, parentId: over.id }),
    dataBytes,
    zeroBytes,
    unchangedBytes,
    ...(await target.sizes()),
    modified: await modifiedOf(path),
    ...(contentOf(checksum) as Pick<DiskRecord, 'content'>),
  }
}

/** The record of a point with other disks; it keeps its id. */
function recordWith(
  { parent: _1, parentId: _2, ...point }: PointRecord,
  now: ReadonlyMap<DiskRecord, DiskRecord>,
  { points }: Lineage,
): PointRecord {
  const disks = point.disks.map((disk) => now.get(disk) ?? disk)
  const parents = disks.flatMap(({ parent }) => points.get(parent ?? '') ?? [])
  const latest = parents.sort(oldestFirst).at(-1)
  return { ...point, ...(latest && { parent: latest.point, parentId: latest.id }), disks }
}
