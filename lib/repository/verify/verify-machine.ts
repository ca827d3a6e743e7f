import type { Progress } from '../../progress.ts'
import { type Inventory, takeInventory } from '../inventory.ts'
import { Lineage } from '../lineage.ts'
import type { MachineFolder } from '../machine-folder.ts'
import { definitionOf, imageOf, recordName } from '../names.ts'
import { VERIFIED } from '../verified.ts'
import type { RepositoryFinding } from './finding.ts'
import { type ImageJob, ImageRun } from './image-run.ts'
import { Outcomes } from './outcomes.ts'

/** What of a machine is verified, and how. */
export interface MachineJob extends ImageJob {
  /** Only these points, with all that their images build on. Default: all that is in the folder. */
  points?: ReadonlySet<string>
  /** Called while others have the folder. */
  onProgress?: (progress: Progress) => void
}

/**
 * Verifies a machine's folder. It is locked for readers meanwhile: a prune waits.
 * @throws BackupError IO if it cannot be read or locked, ABORTED
 */
export async function* verifyMachine(
  folder: MachineFolder,
  job: MachineJob,
): AsyncGenerator<RepositoryFinding, void, undefined> {
  const lock = await folder.readLock(job)
  const outcomes = await Outcomes.of(folder)
  try {
    const inventory = await takeInventory(folder, job.signal)
    yield* otherFindings(folder, inventory, job.points)
    const lineage = new Lineage(inventory.points)
    const run = new ImageRun(folder, lineage, outcomes, job)
    const wanted = lineage.withAncestors(job.points)
    for (const point of lineage.parentsFirst()) {
      if (!wanted.has(point)) continue
      for (const disk of point.disks) yield await run.look(point, disk)
    }
    const difference = await outcomes.store()
    if (difference !== undefined) yield notRemembered(folder, difference)
  } finally {
    await outcomes.store()
    await lock.release()
  }
}

/** What is not an image that a record names. */
function* otherFindings(
  { machine, directory }: MachineFolder,
  { broken, brokenJournals, orphans, leftovers }: Inventory,
  points: ReadonlySet<string> | undefined,
): Generator<RepositoryFinding> {
  for (const { point, error } of broken) {
    if (points && !points.has(point)) continue
    const file = `${directory}/${recordName(point)}`
    const { code, message: difference } = error
    yield { kind: 'record', machine, point, file, same: false, difference, code, notes: [] }
  }
  if (points) return
  for (const { file: name, error } of brokenJournals) {
    const { code, message: difference } = error
    const file = `${directory}/${name}`
    yield { kind: 'record', machine, file, same: false, difference, code, notes: [] }
  }
  for (const name of orphans) {
    const file = `${directory}/${name}`
    const image = imageOf(name)
    const point = image?.point ?? definitionOf(name)
    const what = image ? 'an image' : 'a definition'
    const difference = `${file}: is ${what} that no record names; repository repair tells what can be done`
    const { disk } = image ?? {}
    yield { kind: 'orphan', machine, point, disk, file, same: false, difference, notes: [] }
  }
  for (const name of leftovers) {
    const file = `${directory}/${name}`
    const note = `${file}: is of a run that is under way, or was killed: then the next one removes it`
    yield { kind: 'leftover', machine, file, same: true, notes: [note] }
  }
}

/** Who must not write to a repository can verify it all the same. */
function notRemembered({ machine, directory }: MachineFolder, why: string): RepositoryFinding {
  const note = `${why}; when this was verified is not remembered`
  return { kind: 'memory', machine, file: `${directory}/${VERIFIED}`, same: true, notes: [note] }
}
