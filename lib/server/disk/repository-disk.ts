import { argumentError } from '../../errors.ts'
import { ancestorsOf, findPoint } from '../../repository/find-point.ts'
import { Repository } from '../../repository/repository.ts'
import { requireRecorded } from '../../repository/restore-point.ts'
import { quoted } from '../../text.ts'
import { openImageDisk } from './image-disk.ts'
import type { ServedDisk } from './served-disk.ts'

/** A disk of a machine at a point in time. */
export interface PointDisk {
  machine: string
  /** Default: the latest. */
  point?: string
  disk: string
}

/**
 * Opens a disk that a repository has, to be read. Its files stay open: what is pruned meanwhile is served on.
 * @throws BackupError USAGE if there is none; BAD_IMAGE if an image is not the one that was recorded; as
 * restoreMachine
 */
export async function openPointDisk(
  directory: string,
  { machine, point, disk }: PointDisk,
): Promise<ServedDisk> {
  const repository = await Repository.open(directory)
  const folder = repository.machine(machine)
  const lock = await folder.readLock()
  try {
    const record = await findPoint(repository, machine, point)
    const disks = record.disks.filter(({ name }) => name === disk)
    if (disks.length === 0) {
      throw argumentError('url', `${machine}@${record.point} has no disk ${quoted(disk)}`)
    }
    const points = await ancestorsOf(folder, record, undefined)
    await requireRecorded(folder, record, disks, points, undefined)
    return await openImageDisk(`${folder.directory}/${disks[0].image}`, { format: 'qcow2' })
  } finally {
    await lock.release()
  }
}
