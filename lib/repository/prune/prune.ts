/**
 * A prune of a machine. In this order, for one group of points after the other:
 *
 * 1. Images that build on removed ones are made again, without names, over the nearest kept one; what is read
 *    for them is compared with its hash. They get temporary names. Killed until here: all points are as they
 *    were, and the next run removes the temporary names.
 * 2. While nobody reads, a journal is written, and what it says is done: see prune-journal.ts. Killed from here on: all
 *    kept points can be restored, and the next run finishes it.
 */
import { type BackupError, ioError, isBackupError, throwIfAborted } from '../../errors.ts'
import type { CopyOptions } from '../../options.ts'
import type { Progress } from '../../progress.ts'
import { requireMachine } from '../find-point.ts'
import type { LockedMachine } from '../locked-machine.ts'
import type { MachineFolder } from '../machine-folder.ts'
import { Repository } from '../repository.ts'
import type { RetentionPolicy } from '../retention.ts'
import type { Join } from './plan.ts'
import { type PreparedPrune, preparePrune } from './prepare.ts'
import { runGroup } from './run-group.ts'

/** Options of `pruneRepository`. */
export interface PruneOptions extends RetentionPolicy, Omit<CopyOptions, 'force'> {
  /** Only these machines. Default: all. */
  machines?: readonly string[]
  /** Change nothing, and say what would be done. */
  dryRun?: boolean
  /** Called for each machine before anything of it is changed, with what will be done. */
  onPlan?: (plan: MachinePrune) => void | Promise<void>
}

/** A point in the result of `pruneRepository`. */
export interface PrunedPoint {
  point: string
  /** The instant, ISO 8601. */
  time: string
  keep: boolean
  /** Why: `daily 2026-11-29`, or that no rule keeps it. */
  reasons: string[]
}

/** An image that is made again, as removed points become part of it. */
export interface JoinedImage {
  point: string
  disk: string
  image: string
  /** The points that become part of it, newest first. */
  with: string[]
  /** The point that it builds on then; missing: none. */
  parent?: string
  /** Length of its file, bytes; until it is made, the most that it may be. */
  fileSize: number
}

/** Result of `pruneRepository` for one machine. */
export interface MachinePrune {
  machine: string
  /** Oldest first. */
  points: PrunedPoint[]
  joined: JoinedImage[]
  /** Points that are gone. */
  removed: string[]
  /** Bytes that have to be free for a while, about and at most: what is made, while what it replaces is there. */
  neededBytes: number
  /** Bytes on the file system that are free afterwards and were not before; of a plan, about and at most. */
  freedBytes: number
  /** Why it ended early; `removed` are gone all the same. */
  failure?: { code: BackupError['code']; message: string }
  /** What was found of runs before. */
  notes: string[]
}

/** Failures that are no machine's own. */
const OF_THE_CALL: readonly BackupError['code'][] = ['ABORTED', 'CALLBACK', 'INTERNAL']

/**
 * Removes the points of machines that a policy does not keep, one machine after the other. What they hold and
 * others build on becomes part of those.
 * @throws BackupError USAGE, BAD_RECORD, UNSUPPORTED, IO before anything was changed; ABORTED. Other failures are in the
 * results
 */
export async function* pruneAll(
  directory: string,
  { machines, ...options }: PruneOptions,
): AsyncGenerator<MachinePrune> {
  const repository = await Repository.open(directory)
  const names = machines ? [...new Set(machines)] : await repository.machines()
  for (const name of machines ? names : []) await requireMachine(repository, name)
  for (const name of names) yield await pruneMachine(repository, name, options)
}

async function pruneMachine(
  repository: Repository,
  machine: string,
  options: Omit<PruneOptions, 'machines'>,
): Promise<MachinePrune> {
  const result: MachinePrune = {
    machine,
    points: [],
    joined: [],
    removed: [],
    neededBytes: 0,
    freedBytes: 0,
    notes: [],
  }
  try {
    if (options.dryRun) {
      await prepareInto(result, repository.machine(machine), options)
      return result
    }
    const folder = await repository.lock(machine)
    try {
      const left = await folder.clean(options)
      if (left.length > 0) result.notes.push(`removed what a run before left: ${left.join(', ')}`)
      const prepared = await prepareInto(result, folder, options)
      await runAll(result, folder, prepared, options)
    } finally {
      await folder.close()
    }
  } catch (error) {
    const { code, message } = ioError(machine, error)
    if (!isBackupError(error) || OF_THE_CALL.includes(code)) throw error
    result.failure = { code, message }
  }
  return result
}

/** Plans a prune; of the result all is there then but what will have become of it. */
async function prepareInto(
  result: MachinePrune,
  folder: MachineFolder,
  { signal, onPlan, ...policy }: PruneOptions,
): Promise<PreparedPrune> {
  const prepared = preparePrune(await folder.points(signal), policy)
  for (const { point, ...verdict } of prepared.verdicts) {
    result.points.push({ point: point.point, time: point.time, ...verdict })
  }
  for (const join of prepared.groups.flatMap(({ joins }) => joins)) {
    result.joined.push(joinedImage(join, join.most))
  }
  result.neededBytes = prepared.neededBytes
  result.freedBytes = prepared.freedBytes
  await onPlan?.(structuredClone(result))
  return prepared
}

async function runAll(
  result: MachinePrune,
  folder: LockedMachine,
  { groups, lineage }: PreparedPrune,
  { onProgress, ...options }: PruneOptions,
): Promise<void> {
  const step = stepsOf(
    groups.reduce((sum, { work }) => sum + work, 0),
    onProgress,
  )
  result.freedBytes = 0
  for (const group of groups) {
    throwIfAborted(options.signal, folder.directory)
    const now = await runGroup(folder, lineage, group, { ...options, onProgress }, step)
    result.removed.push(...group.remove.map(({ point }) => point))
    result.freedBytes += group.goneBytes
    for (const join of group.joins) {
      const { fileSize, allocatedBytes } = now.get(join.disk)!
      result.freedBytes -= allocatedBytes
      const made = result.joined.find(
        ({ point, disk }) => point === join.point.point && disk === join.disk.name,
      )
      made!.fileSize = fileSize
    }
  }
}

function joinedImage({ point, disk, chain, upper }: Join, fileSize: number): JoinedImage {
  const parent = chain.at(upper)?.point.point
  return {
    point: point.point,
    disk: disk.name,
    image: disk.image,
    with: chain.slice(1, upper).map((one) => one.point.point),
    ...(parent !== undefined && { parent }),
    fileSize,
  }
}

/** Adds up the progress of things that are done one after the other. */
function stepsOf(size: number, onProgress: ((progress: Progress) => void) | undefined) {
  const started = performance.now()
  let [begun, data] = [0, 0]
  return (bytes: number): ((progress: Progress) => void) | undefined => {
    const [start, before] = [begun, data]
    begun += bytes
    return (
      onProgress &&
      (({ phase, position, dataBytes }) => {
        if (phase === 'copy') data = before + dataBytes
        const elapsedSeconds = (performance.now() - started) / 1000
        onProgress({ phase, position: start + position, size, dataBytes: data, elapsedSeconds })
      })
    )
  }
}
