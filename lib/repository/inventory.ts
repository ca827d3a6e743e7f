import { BackupError, ioError, isBackupError, throwIfAborted } from '../errors.ts'
import type { MachineFolder } from './machine-folder.ts'
import { definitionOf, imageOf, pointOf } from './names.ts'
import { PRUNE_JOURNAL_NAME, readPruneJournal } from './prune-journal.ts'
import { oldestFirst, type PointRecord } from './record.ts'
import { isTemporary, RUN_JOURNAL_NAME, readRunJournal } from './run-journal.ts'

/** What is in a machine's folder. Files that are not the program's by their names are left out. */
export interface Inventory {
  /** Oldest first. */
  points: PointRecord[]
  /** Points whose records cannot be read, and the images that are theirs by their names. */
  broken: { point: string; error: BackupError; images: string[] }[]
  /** Images and definitions that no record names. */
  orphans: string[]
  /** Journals and temporary files: of a run that was killed, or of one that is under way. */
  leftovers: string[]
  /** Journals that cannot be read: no backup is made as long as they are there. */
  brokenJournals: { file: string; error: BackupError }[]
}

/**
 * Takes an inventory, whatever is wrong with records and journals.
 * @throws BackupError IO if the folder cannot be read, ABORTED
 */
export async function takeInventory(
  folder: MachineFolder,
  signal?: AbortSignal,
): Promise<Inventory> {
  const files = (await folder.files()).sort()
  const run = await readRunJournal(folder.directory).catch(asFault)
  const prune = await readPruneJournal(folder.machine, folder.directory).catch(asFault)
  const { points, broken } = await recordsOf(folder, files, signal)
  // What a prune removes that was ended early goes with the next run.
  const going = new Set(isRead(prune) ? prune.remove.flatMap((removed) => removed.files) : [])
  const orphans = orphansIn(files, points, broken).filter((file) => !going.has(file))
  const journals = new Map<string, unknown>([
    [RUN_JOURNAL_NAME, run],
    [PRUNE_JOURNAL_NAME, prune],
  ])
  const brokenJournals = [...journals].flatMap(([file, error]) =>
    error instanceof BackupError ? [{ file, error }] : [],
  )
  const leftovers = files.filter((file) => isTemporary(file) || isRead(journals.get(file)))
  const named = isRead(run) ? run.point : undefined
  const old = orphans.length === 0 ? [] : await withoutNew(folder, orphans, points, named)
  return { points, broken, orphans: old, leftovers, brokenJournals }
}

function asFault(error: unknown): BackupError {
  return ioError('', error)
}

function isRead<T>(journal: T | BackupError | undefined): journal is T {
  return journal !== undefined && !(journal instanceof BackupError)
}

async function recordsOf(
  folder: MachineFolder,
  files: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Pick<Inventory, 'points' | 'broken'>> {
  try {
    return { points: await folder.points(signal), broken: [] }
  } catch (error) {
    throwIfAborted(signal, folder.directory)
    if (!isBackupError(error)) throw error
    // Which of them are broken is found by reading each by itself.
  }
  const points: PointRecord[] = []
  const broken: Inventory['broken'] = []
  for (const point of files.flatMap((file) => pointOf(file) ?? [])) {
    throwIfAborted(signal, folder.directory)
    try {
      const record = await folder.point(point)
      if (record) points.push(record)
    } catch (error) {
      const images = files.filter((file) => imageOf(file)?.point === point)
      broken.push({ point, error: ioError(folder.directory, error), images })
    }
  }
  return { points: points.sort(oldestFirst), broken }
}

function orphansIn(
  files: readonly string[],
  points: readonly PointRecord[],
  broken: Inventory['broken'],
): string[] {
  const images = new Set(points.flatMap(({ disks }) => disks.map(({ image }) => image)))
  const known = new Set([...points, ...broken].map(({ point }) => point))
  const unread = new Set(broken.map(({ point }) => point))
  return files.filter((file) => {
    const image = imageOf(file)
    const point = image?.point ?? definitionOf(file)
    if (point === undefined || images.has(file)) return false
    return !(image ? unread : known).has(point)
  })
}

/**
 * Leaves out what a run that is under way gives names: it has a record in a moment, or by now.
 * @param named the point of the run
 */
async function withoutNew(
  folder: MachineFolder,
  orphans: readonly string[],
  points: readonly PointRecord[],
  named: string | undefined,
): Promise<string[]> {
  const known = new Set(points.map(({ point }) => point))
  const kept: string[] = []
  for (const file of orphans) {
    const point = imageOf(file)?.point ?? definitionOf(file)!
    if (point === named) continue
    const isNew = !known.has(point) && (await folder.point(point).catch(() => undefined))
    if (!isNew) kept.push(file)
  }
  return kept
}
