import { type BackupError, messageOf } from '../../errors.ts'
import type { QmpClient } from '../../qmp/client.ts'
import type { FrozenDisk, PointInTime } from '../machine.ts'
import type { RunLock } from '../run-lock.ts'
import { beginCheckpoints, removeOld } from './checkpoints.ts'
import type { PlannedDisk } from './plan-freeze.ts'
import { type RemoveOptions, removeFiles, removeRun } from './remove-run.ts'
import type { Scratch } from './scratch.ts'
import type { Watch } from './watch.ts'

/** What a point in time consists of. */
export interface PointParts {
  time: Date
  disks: readonly FrozenDisk[]
  versions: Readonly<Record<string, string>>
  notes: readonly string[]
  run: string
  plan: readonly PlannedDisk[]
  scratches: readonly Scratch[]
  watch: Watch
  lock: RunLock
  removing: RemoveOptions
  /** The machine's monitor, connected again if need be. */
  monitor(): Promise<QmpClient>
  /** Looks whether it is still there; aborts `lost` if not. */
  check(): Promise<void>
}

/** A point in time that a QEMU keeps. */
export class QmpPoint implements PointInTime {
  readonly time: Date
  readonly disks: readonly FrozenDisk[]
  readonly versions: Readonly<Record<string, string>>
  readonly notes: readonly string[]
  readonly lost: AbortSignal
  readonly #parts: PointParts
  #ended: Promise<string[]> | undefined

  constructor(parts: PointParts) {
    this.#parts = parts
    this.time = parts.time
    this.disks = parts.disks
    this.versions = parts.versions
    this.notes = parts.notes
    this.lost = parts.watch.signal
  }

  /** Not while reads are under way: QEMU before 9.1 aborts on overlapping requests to a point in time. */
  readonly whyLost = async (): Promise<BackupError | undefined> => {
    // A server that cannot be asked is another failure's business.
    if (!this.#ended) await this.#parts.check().catch(() => undefined)
    return this.lost.aborted ? this.lost.reason : undefined
  }

  succeed({ remove }: { remove: readonly string[] }): Promise<string[]> {
    this.#ended ??= this.#succeed(remove)
    return this.#ended
  }

  fail(): Promise<string[]> {
    this.#ended ??= this.#end()
    return this.#ended
  }

  async #succeed(remove: readonly string[]): Promise<string[]> {
    const { monitor, plan, run } = this.#parts
    const notes: string[] = []
    try {
      const client = await monitor()
      await beginCheckpoints(client, plan, run)
      notes.push(...(await removeOld(client, plan, remove)))
    } catch (error) {
      const why = messageOf(error)
      notes.push(`the bitmaps for the next backup are not as they should be: ${why}`)
    }
    return [...notes, ...(await this.#end())]
  }

  async #end(): Promise<string[]> {
    const { lock, monitor, removing, scratches, run, watch } = this.#parts
    watch.stop()
    let notes: string[]
    try {
      notes = await removeRun(await monitor(), run, removing)
    } catch (error) {
      const why = `the machine could not be cleaned up: ${messageOf(error)}`
      notes = [why, ...(await removeFiles(run, removing.files ?? []))]
    }
    await Promise.allSettled(scratches.map((scratch) => scratch.close()))
    lock.release()
    return notes
  }
}
