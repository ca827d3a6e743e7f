import type { CleanOptions, Leftover } from '../machine.ts'
import { listCheckpoints, markStored } from './checkpoints.ts'
import { readDomain } from './domain.ts'
import { thaw } from './freeze.ts'
import { readJob } from './job.ts'
import { isGoingOn, ownerIn } from './owner.ts'
import { findRuns, placeOf, removePlaces } from './places.ts'
import { endJob, removeUnfinished } from './point.ts'
import type { Virsh } from './virsh.ts'

/** What a run that has ended left. */
interface LeftRun {
  mark: string
  run: string
  hasJob: boolean
  checkpoints: { name: string; disks: readonly string[] }[]
  directories: string[]
  quiesce: boolean
  discards: number
}

/** Finds what runs that have ended left in a domain and on this host. */
async function findLeft(virsh: Virsh, uuid: string, signal?: AbortSignal): Promise<LeftRun[]> {
  const runs = new Map<string, LeftRun>()
  const of = async (mark: string): Promise<LeftRun | undefined> => {
    const owner = ownerIn(mark)
    if (!owner || (await isGoingOn(owner))) return undefined
    const { run } = owner
    const left = runs.get(mark) ?? {
      ...{ mark, run, hasJob: false, checkpoints: [], directories: [], quiesce: false },
      discards: 0,
    }
    runs.set(mark, left)
    return left
  }
  const job = await readJob(virsh, uuid, signal)
  if (job?.owner) {
    const left = await of(job.owner.mark)
    if (left) {
      left.hasJob = true
      if (virsh.isLocal) left.directories = job.files.flatMap((path) => placeOf(path) ?? [])
    }
  }
  const { isActive } = await readDomain(virsh, uuid, signal)
  for (const { name, unfinished, disks } of await listCheckpoints(virsh, uuid, isActive, signal)) {
    const left = unfinished === undefined ? undefined : await of(unfinished)
    left?.checkpoints.push({ name, disks: disks.map((disk) => disk.name) })
  }
  if (virsh.isLocal) {
    for (const [mark, record] of await findRuns(uuid)) {
      const left = await of(mark)
      if (!left) continue
      left.directories.push(...record.directories)
      left.quiesce = record.quiesce
      left.discards = record.discards
    }
  }
  return [...runs.values()]
}

export async function findLeftovers(
  virsh: Virsh,
  uuid: string,
  signal?: AbortSignal,
): Promise<Leftover[]> {
  return (await findLeft(virsh, uuid, signal)).flatMap((left) => namesOf(left))
}

/** Removes what runs that have ended left. */
export async function cleanLeftovers(
  virsh: Virsh,
  uuid: string,
  { signal, isStored = () => false }: CleanOptions,
): Promise<Leftover[]> {
  const runs = await findLeft(virsh, uuid, signal)
  for (const { mark, run, hasJob, checkpoints, directories, quiesce, discards } of runs) {
    if (quiesce) await thaw(virsh, uuid).catch(() => {})
    for (const { name } of checkpoints) {
      if (isStored(run)) await markStored(virsh, uuid, name)
      else await removeUnfinished(virsh, uuid, mark, name)
    }
    if (hasJob || discards > 0) await endJob(virsh, uuid, mark, { discards })
    await removePlaces([...new Set(directories)])
  }
  return runs.flatMap((left) => namesOf(left, isStored(left.run)))
}

function namesOf(left: LeftRun, isStored = false): Leftover[] {
  const { run, hasJob, checkpoints, directories } = left
  return [
    ...(hasJob ? [{ kind: 'job' as const, name: 'backup', run }] : []),
    ...(isStored ? [] : checkpoints).map(({ name }) => {
      return { kind: 'checkpoint' as const, name, run }
    }),
    ...[...new Set(directories)].map((name) => ({ kind: 'file' as const, name, run })),
  ]
}
