import { BackupError, messageOf } from '../../errors.ts'
import { editBitmap } from '../../maintain/edit-bitmap.ts'
import type { FrozenDisk, PointInTime } from '../machine.ts'
import {
  deleteCheckpoint,
  forgetCheckpoint,
  listCheckpoints,
  markStored,
  readCheckpoint,
} from './checkpoints.ts'
import { endExports, removeNodes } from './discard.ts'
import { type Domain, readDomain } from './domain.ts'
import { abortJob, readJob } from './job.ts'
import { ownerIn } from './owner.ts'
import { type Places, removePlaces } from './places.ts'
import type { Virsh } from './virsh.ts'
import { watchDomain } from './watch.ts'

/** What a run has made in a domain. */
export interface RunState {
  virsh: Virsh
  uuid: string
  mark: string
  places?: Places
  /** Name of the checkpoint that is made with the job. */
  checkpoint?: string
  /** The guest stood already before the run, for an I/O error that is not ours. */
  stoodBefore?: boolean
  /** Ends the mark of a run that goes on. */
  end: () => void
  /** Disks with exports that take discards. */
  discards?: number
}

/** A point in time that a backup job keeps. */
export class LibvirtPoint implements PointInTime {
  readonly time: Date
  readonly disks: readonly FrozenDisk[]
  readonly versions: Readonly<Record<string, string>>
  readonly definition: string
  readonly notes: readonly string[]
  readonly #run: RunState
  readonly #lost = new AbortController()
  readonly #watch = new AbortController()
  #ending: Promise<string[]> | undefined

  constructor(
    run: RunState,
    facts: Pick<PointInTime, 'time' | 'disks' | 'versions' | 'notes'> & { definition: string },
  ) {
    this.time = facts.time
    this.disks = facts.disks
    this.versions = facts.versions
    this.definition = facts.definition
    this.notes = facts.notes
    this.#run = run
    const look = () => this.#look()
    void watchDomain(run.virsh, run.uuid, look, this.#watch.signal)
  }

  get lost(): AbortSignal {
    return this.#lost.signal
  }

  readonly whyLost = async (): Promise<BackupError | undefined> => {
    // What libvirt does not answer is not known to be lost.
    await this.#look().catch(() => undefined)
    return this.lost.aborted ? this.lost.reason : undefined
  }

  async succeed({ remove }: { remove: readonly string[] }): Promise<string[]> {
    this.#watch.abort()
    this.#ending ??= this.#succeed(remove)
    return await this.#ending
  }

  async fail(): Promise<string[]> {
    this.#watch.abort()
    this.#ending ??= undo(this.#run)
    return await this.#ending
  }

  async #succeed(remove: readonly string[]): Promise<string[]> {
    const { virsh, uuid, mark, places, checkpoint, end } = this.#run
    const notes: string[] = []
    const attempt = noting(notes)
    // Whoever finds the checkpoint from here on sees that its backup is stored.
    if (checkpoint !== undefined) {
      await attempt('the checkpoint is not marked as stored', () =>
        markStored(virsh, uuid, checkpoint),
      )
    }
    await attempt('the backup job goes on', () => endJob(virsh, uuid, mark, this.#run))
    await attempt('the last checkpoints stay', async () => {
      notes.push(...(await removeCheckpoints(virsh, uuid, remove)))
    })
    if (places) await removePlaces([places.scratch, places.directory])
    end()
    return notes
  }

  /** Whether there is more to watch for. */
  async #look(): Promise<boolean> {
    const { virsh, uuid, mark } = this.#run
    const job = await readJob(virsh, uuid)
    const state = await stateOf(virsh, uuid)
    if (this.#watch.signal.aborted) return false
    if (job?.owner?.mark !== mark) {
      const why = /^(running|paused|idle|pmsuspended|in shutdown)/.test(state)
        ? 'the backup job was ended by somebody else'
        : `the domain is ${state}: its backup job ended with it`
      this.#lose(why)
      return false
    }
    if (!standsForIoError(state) || this.#run.stoodBefore) return true
    // A copy before a write that fails stops the guest: it goes on only without the job.
    await abortJob(virsh, uuid)
    await virsh.run(['resume', `--domain=${uuid}`])
    const where = this.#run.places?.scratch
    const space = where === undefined ? 'the scratch space' : where
    this.#lose(
      `a write of the guest failed, most likely since ${space} is full: the backup job was ended ` +
        'and the guest goes on',
    )
    return false
  }

  #lose(why: string): void {
    this.#lost.abort(new BackupError('IO', this.#run.virsh.title, why))
  }
}

/** Removes all that a run made in a domain. Never rejects; notes what it could not. */
export async function undo(run: RunState): Promise<string[]> {
  const { virsh, uuid, mark, places, checkpoint, end } = run
  const notes: string[] = []
  const attempt = noting(notes)
  if (checkpoint !== undefined) {
    // Before the job: whoever finds a checkpoint that is not stored and no job knows that the domain
    // went away in mid-run.
    await attempt(`checkpoint ${checkpoint} stays, which machine abort removes`, async () => {
      notes.push(...(await removeUnfinished(virsh, uuid, mark, checkpoint)))
    })
  }
  await attempt('the backup job goes on, which machine abort ends', () =>
    endJob(virsh, uuid, mark, run),
  )
  if (places) await removePlaces([places.scratch, places.directory])
  end()
  return notes
}

/** The state of a domain with its reason: `shut off (destroyed)`. */
export async function stateOf(virsh: Virsh, uuid: string): Promise<string> {
  return (await virsh.run(['domstate', `--domain=${uuid}`, '--reason'])).trim()
}

export function standsForIoError(state: string): boolean {
  return /^paused \(I\/O error\)/i.test(state)
}

/**
 * Ends the job of a run, and has the guest go on if the job has stopped it.
 * @param run `discards`: disks with exports that take discards; `stoodBefore`: not known of a run that
 * was killed
 */
export async function endJob(
  virsh: Virsh,
  uuid: string,
  mark: string,
  { discards = 0, stoodBefore }: Pick<RunState, 'discards' | 'stoodBefore'> = {},
): Promise<void> {
  const { run } = ownerIn(mark)!
  const isOurs = (await readJob(virsh, uuid))?.owner?.mark === mark
  if (isOurs) {
    await endExports(virsh, uuid, run, discards)
    await abortJob(virsh, uuid)
  }
  // A job that was ended before, by whoever it was, may have left the guest standing.
  const mayBeBy = stoodBefore === undefined ? isOurs : !stoodBefore
  if (mayBeBy && standsForIoError(await stateOf(virsh, uuid))) {
    await virsh.run(['resume', `--domain=${uuid}`])
  }
  if (discards > 0) await removeNodes(virsh, uuid, run, discards)
}

/**
 * Deletes a checkpoint whose backup was not stored: the older ones have all that it has.
 * @returns notes
 */
export async function removeUnfinished(
  virsh: Virsh,
  uuid: string,
  mark: string,
  name: string,
): Promise<string[]> {
  const domain = await readDomain(virsh, uuid)
  const checkpoint = await readCheckpoint(virsh, uuid, name, domain.isActive)
  if (checkpoint?.unfinished !== mark) return []
  try {
    if (domain.isActive) return await deleteCheckpoint(virsh, uuid, name)
  } catch (error) {
    // It may have been shut off meanwhile.
    if ((await readDomain(virsh, uuid)).isActive) throw error
  }
  return await removeStopped(virsh, domain, name)
}

/** Deletes a checkpoint of a domain that is shut off, with its bitmaps. */
async function removeStopped(virsh: Virsh, domain: Domain, name: string): Promise<string[]> {
  const checkpoint = await readCheckpoint(virsh, domain.uuid, name, false)
  const notes: string[] = []
  for (const { name: disk } of checkpoint?.disks ?? []) {
    const found = domain.disks.find((one) => one.name === disk)
    for (const { path, format } of found?.chain ?? []) {
      if (path === undefined || format !== 'qcow2') continue
      if (!virsh.isLocal) {
        notes.push(`bitmap ${name} may stay in ${path}, which is on another host`)
        continue
      }
      await editBitmap(path, name, [{ kind: 'remove' }]).catch((error) => {
        if (!(error instanceof BackupError && error.code === 'BAD_BITMAP')) {
          notes.push(`bitmap ${name} may stay: ${messageOf(error)}`)
        }
      })
    }
  }
  await forgetCheckpoint(virsh, domain.uuid, name)
  return notes
}

/** Deletes checkpoints of ours that no later backup needs. */
export async function removeCheckpoints(
  virsh: Virsh,
  uuid: string,
  names: readonly string[],
): Promise<string[]> {
  if (names.length === 0) return []
  const notes: string[] = []
  const attempt = noting(notes)
  const domain = await readDomain(virsh, uuid)
  for (const { name, isOurs } of await listCheckpoints(virsh, uuid, domain.isActive)) {
    if (!names.includes(name)) continue
    if (!isOurs) {
      notes.push(`checkpoint ${name} stays: it was made by others`)
      continue
    }
    await attempt(`checkpoint ${name} stays`, async () => {
      const remove = domain.isActive
        ? deleteCheckpoint(virsh, uuid, name)
        : removeStopped(virsh, domain, name)
      notes.push(...(await remove))
    })
  }
  return notes
}

/** Runs steps of which each is to be tried, whatever became of the others. */
function noting(notes: string[]): (what: string, step: () => Promise<void>) => Promise<void> {
  return async (what, step) => {
    try {
      await step()
    } catch (error) {
      notes.push(`${what}: ${messageOf(error)}`)
    }
  }
}
