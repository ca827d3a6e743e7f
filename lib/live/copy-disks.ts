import { type CopyRequest, type CopySession, openSession } from '../backup/session.ts'
import type { TotalProgress } from '../backup/total-progress.ts'
import { BackupError, isBackupError } from '../errors.ts'
import type { FrozenDisk, PointInTime } from '../machine/machine.ts'
import { isNbdUri } from '../nbd/uri.ts'
import type { MachineFolder } from '../repository/machine-folder.ts'
import type { Decision } from './decide.ts'
import { changesSince } from './rebuild.ts'
import type { BackupMachineOptions } from './types.ts'

/** A disk with the decision about it. */
export interface DiskTask extends Decision {
  frozen: FrozenDisk
}

/**
 * Copies all disks of a point in time at once, and verifies the images where that is asked for; none has its
 * name yet. The first failure ends the others, and so does the loss of the point.
 * @param sessions receives what was opened, to be published or discarded, in the order of the disks
 * @throws BackupError, the first
 */
export async function copyDisks(
  tasks: readonly DiskTask[],
  sessions: CopySession[],
  place: { folder: MachineFolder; point: string },
  frozen: Pick<PointInTime, 'lost' | 'whyLost'>,
  options: BackupMachineOptions,
  progress: TotalProgress,
): Promise<void> {
  const failing = new AbortController()
  const signal = AbortSignal.any([
    failing.signal,
    frozen.lost,
    ...(options.signal ? [options.signal] : []),
  ])
  const opened = new Map<DiskTask, CopySession>()
  const all = async (work: (task: DiskTask) => Promise<void>) => {
    let first: unknown
    await Promise.all(
      tasks.map(async (task) => {
        try {
          await work(task)
        } catch (error) {
          first ??= error
          failing.abort(error)
        }
      }),
    )
    if (first !== undefined) throw (await lossOf(frozen, first)) ?? first
  }
  try {
    await all(async (task) => {
      const request = await requestFor(task, tasks.length, place, { ...options, signal }, progress)
      const { name, virtualSize } = task.frozen
      const { from, to: target } = request as CopyRequest & { from: string }
      await options.onDisk?.({ name, kind: task.kind, virtualSize, source: from, target })
      const session = await openSession(request)
      opened.set(task, session)
      requireSize(name, virtualSize, session.virtualSize)
      await session.copy()
    })
    if (options.verify) await all((task) => opened.get(task)!.verify())
  } finally {
    sessions.push(...tasks.flatMap((task) => opened.get(task) ?? []))
  }
}

/** @throws BackupError SOURCE_CHANGED if a disk is not the one that was frozen */
function requireSize(name: string, frozen: number, opened: number): void {
  if (frozen === opened) return
  const why = `had ${frozen} bytes at the instant, and has ${opened} now`
  throw new BackupError('SOURCE_CHANGED', `disk ${name}`, why)
}

async function requestFor(
  { frozen, parent, since }: DiskTask,
  disks: number,
  { folder, point }: { folder: MachineFolder; point: string },
  options: BackupMachineOptions & { signal: AbortSignal },
  progress: TotalProgress,
): Promise<CopyRequest> {
  const { signal, rateLimit, requests, retries, engine, direct, verify } = options
  const { clusterSize, compress, compressionLevel, connections, timeoutMs } = options
  const onProgress = progress.of(frozen.name)
  const previous = parent && folder.imagePath(frozen.name, parent.point.point)
  const changed =
    previous !== undefined && since === undefined
      ? await changesSince(frozen, previous, { signal, onProgress })
      : undefined
  const network = isNbdUri(frozen.source) ? { connections, timeoutMs } : {}
  return {
    from: frozen.source,
    to: folder.imagePath(frozen.name, point),
    format: 'qcow2',
    replaces: 'image',
    previous,
    // Its chain is in the repository, not where the disk's own is.
    previousOptions: {},
    changed,
    held: frozen.heldRanges && (() => frozen.heldRanges!()),
    hash: true,
    options: {
      ...network,
      ...frozen.open,
      // A machine's limit is of all disks together.
      rateLimit: rateLimit && Math.max(1, Math.floor(rateLimit / disks)),
      requests,
      retries,
      engine,
      direct,
      verify,
      clusterSize,
      compress,
      compressionLevel,
      discardAfterCopy: frozen.discardGranule,
      signal,
      onProgress,
    },
  }
}

/** How the point was lost, if that is why something failed. */
async function lossOf(
  { lost, whyLost }: Pick<PointInTime, 'lost' | 'whyLost'>,
  error: unknown,
): Promise<unknown> {
  if (lost.aborted) return lost.reason
  if (!isBackupError(error) || error.code !== 'IO') return undefined
  return await whyLost?.()
}
