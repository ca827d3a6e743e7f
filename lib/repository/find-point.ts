import { BackupError, throwIfAborted } from '../errors.ts'
import { listed, quoted } from '../text.ts'
import type { MachineFolder } from './machine-folder.ts'
import type { PointRecord } from './record.ts'
import type { Repository } from './repository.ts'

const MAX_LISTED = 10

/** A point and those that its images build on. Only these: the record of another may be broken. */
export async function ancestorsOf(
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

/**
 * A point of a machine.
 * @param point default: the latest
 * @throws BackupError USAGE if there is no such point; IO, BAD_RECORD, UNSUPPORTED
 */
export async function findPoint(
  repository: Repository,
  machine: string,
  point?: string,
): Promise<PointRecord> {
  const folder = repository.machine(machine)
  const record = point === undefined ? (await folder.points()).at(-1) : await folder.point(point)
  if (record) return record
  await requireMachine(repository, machine)
  throw new BackupError('USAGE', `${machine}@${point}`, 'there is no such point')
}

/**
 * Makes sure that a machine has points.
 * @throws BackupError USAGE with the machines that there are; IO, BAD_RECORD, UNSUPPORTED
 */
export async function requireMachine(repository: Repository, machine: string): Promise<void> {
  if (await repository.machine(machine).hasPoints()) return
  const names = listed(await repository.machines(), MAX_LISTED, quoted)
  const why = `${repository.directory} has no such machine; it has ${names || 'none'}`
  throw new BackupError('USAGE', machine, why)
}
