import { type BackupError, ioError, isBackupError, throwIfAborted } from '../errors.ts'
import { readForm } from './form.ts'
import { JOURNAL, RUN_JOURNAL, TEMPORARY } from './locked-machine.ts'
import type { MachineFolder } from './machine-folder.ts'
import { definitionOf, imageOf, pointOf } from './names.ts'
import { JOURNAL as PRUNE, PRUNE_JOURNAL } from './prune-journal.ts'
import { oldestFirst, type PointRecord } from './record.ts'

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
}

const JOURNALS = [JOURNAL, PRUNE]

/**
 * Takes an inventory, whatever is wrong with records.
 * @throws BackupError IO if the folder cannot be read, ABORTED
 */
export async function takeInventory(
  folder: MachineFolder,
  signal?: AbortSignal,
): Promise<Inventory> {
  const files = (await folder.files()).sort()
  const { points, broken } = await recordsOf(folder, files, signal)
  return {
    points,
    broken,
    orphans: await orphansIn(folder, files, points, broken),
    leftovers: files.filter((file) => JOURNALS.includes(file) || TEMPORARY.test(file)),
  }
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

async function orphansIn(
  folder: MachineFolder,
  files: readonly string[],
  points: readonly PointRecord[],
  broken: Inventory['broken'],
): Promise<string[]> {
  const images = new Set(points.flatMap(({ disks }) => disks.map(({ image }) => image)))
  const known = new Set([...points, ...broken].map(({ point }) => point))
  const unread = new Set(broken.map(({ point }) => point))
  const orphans: string[] = []
  for (const file of files) {
    const image = imageOf(file)
    const point = image?.point ?? definitionOf(file)
    if (point === undefined || images.has(file)) continue
    if (image ? unread.has(point) : known.has(point)) continue
    orphans.push(file)
  }
  if (orphans.length === 0) return orphans
  // What a run gives names now has its record in a moment.
  const journal = await readForm(`${folder.directory}/${JOURNAL}`, RUN_JOURNAL).catch(
    () => undefined,
  )
  // What a prune removes that was ended early goes with the next run.
  const prune = await readForm(`${folder.directory}/${PRUNE}`, PRUNE_JOURNAL).catch(() => undefined)
  const going = new Set(prune?.remove.flatMap(({ files }) => files))
  const kept: string[] = []
  for (const file of orphans) {
    if (going.has(file)) continue
    const point = imageOf(file)?.point ?? definitionOf(file)!
    const isNew = !known.has(point) && (await isRecorded(folder, point))
    if (point !== journal?.point && !isNew) kept.push(file)
  }
  return kept
}

async function isRecorded(folder: MachineFolder, point: string): Promise<boolean> {
  return (await folder.point(point).catch(() => undefined)) !== undefined
}
