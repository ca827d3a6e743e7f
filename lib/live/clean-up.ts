import type { Leftover, Machine } from '../machine/machine.ts'
import type { LockedMachine } from '../repository/locked-machine.ts'
import type { PointRecord } from '../repository/record.ts'

/** What runs before left, and the points that are there. */
export interface CleanedUp {
  /** Names of files in the repository that were removed. */
  files: string[]
  /** What was removed from the machine. */
  leftovers: Leftover[]
  /** Oldest first. */
  points: PointRecord[]
}

/**
 * Removes what runs before left, first in the repository: what of them in the machine stays depends on which
 * have a record.
 * @throws BackupError BAD_RECORD, UNSUPPORTED, IO, ABORTED
 */
export async function cleanUp(
  machine: Pick<Machine, 'clean'>,
  folder: LockedMachine,
  signal?: AbortSignal,
): Promise<CleanedUp> {
  const files = await folder.clean({ signal })
  const points = await folder.points()
  const stored = new Set(points.map(({ id }) => id))
  const leftovers = await machine.clean({ signal, isStored: (run) => stored.has(run) })
  return { files, leftovers, points }
}
