import { argumentError, type BackupError, ioError, isBackupError } from '../../errors.ts'
import type {
  FreezeDisk,
  FreezeOptions,
  FrozenDisk,
  MachineOptions,
  PointInTime,
} from '../machine.ts'
import { frozenExport, HeldDisk, isExport } from './held-disk.ts'
import type { NamedDisk } from './parse-disks.ts'

type Access = Pick<MachineOptions, 'format' | 'allowPaths' | 'backingFormat'>

/** Systems' refusals to write to a file that can be read. */
const READ_ONLY: readonly unknown[] = ['EACCES', 'EPERM', 'EROFS']

/**
 * Locks all disks for as long as the point in time is needed, and begins the new bitmaps.
 * The bitmaps of the last backup stay until `succeed`, so what is left by a run that is killed at
 * any moment records at least as much as before.
 * @throws BackupError IN_USE, BAD_IMAGE, BAD_BITMAP, UNSUPPORTED, NOT_ALLOWED, IO, ABORTED
 */
export async function freezeDisks(
  disks: readonly NamedDisk[],
  access: Access,
  options: FreezeOptions,
): Promise<PointInTime> {
  const point = new FrozenDisks(options)
  try {
    await options.beforeFreeze?.()
    for (const wanted of options.disks) {
      const disk = disks.find(({ name }) => name === wanted.name)
      if (!disk) throw argumentError('disks', `there is no disk '${wanted.name}'`)
      await point.hold(disk, access, wanted)
    }
    point.time = new Date()
    await options.afterFreeze?.()
    for (const wanted of options.disks) await point.begin(wanted)
    return point
  } catch (error) {
    await point.fail()
    throw error
  }
}

/** Disks that are locked, so that they stay as they are. */
class FrozenDisks implements PointInTime {
  readonly versions = {}
  /** Only the files' own locks keep them as they are: nothing can be lost. */
  readonly lost = new AbortController().signal
  readonly disks: FrozenDisk[] = []
  readonly notes: string[] = []
  time = new Date()
  readonly #options: FreezeOptions
  readonly #held = new Map<string, HeldDisk>()
  /** Those in which a bitmap may have begun. */
  readonly #begun = new Set<HeldDisk>()

  constructor(options: FreezeOptions) {
    this.#options = options
  }

  async hold(disk: NamedDisk, access: Access, { checkpoint, since }: FreezeDisk): Promise<void> {
    const { signal } = this.#options
    if (isExport(disk)) {
      this.disks.push(await frozenExport(disk, access, signal))
      return
    }
    let editing = checkpoint !== undefined
    const held = await HeldDisk.hold(disk, access, { editing, signal }).catch(async (error) => {
      if (!editing || !READ_ONLY.includes(error.errno)) throw error
      this.#cannotBegin(disk.name, error)
      editing = false
      return await HeldDisk.hold(disk, access, { editing, signal })
    })
    this.#held.set(disk.name, held)
    this.disks.push(held.frozen(since, undefined))
    if (editing) this.#begun.add(held)
  }

  async begin({ name, checkpoint }: FreezeDisk): Promise<void> {
    const held = this.#held.get(name)
    if (checkpoint === undefined || !held || !this.#begun.has(held)) return
    const { run, signal } = this.#options
    try {
      const granularity = await held.begin(run, checkpoint, signal)
      this.disks.find((disk) => disk.name === name)!.checkpoint = { name: checkpoint, granularity }
    } catch (error) {
      // A damaged image can be read still, but is not written to.
      if (!isBackupError(error) || error.code !== 'BAD_IMAGE') throw error
      this.#cannotBegin(name, error)
      this.#begun.delete(held)
    }
  }

  async succeed({ remove }: { remove: readonly string[] }): Promise<string[]> {
    return await this.#end(true, remove)
  }

  async fail(): Promise<string[]> {
    return await this.#end(false, [])
  }

  async #end(isStored: boolean, remove: readonly string[]): Promise<string[]> {
    const notes: string[] = []
    for (const [name, held] of this.#held) {
      if (this.#begun.has(held)) {
        const isThis = (run: string) => run === this.#options.run
        await held
          .end(isThis, () => isStored, remove)
          .catch((error) => {
            const { why } = ioError(name, error)
            notes.push(
              `disk ${name}: bitmaps are left in it, which the next backup removes: ${why}`,
            )
          })
      }
      await held.release()
    }
    this.#held.clear()
    return notes
  }

  #cannotBegin(name: string, { why }: BackupError): void {
    this.notes.push(`disk ${name}: no bitmap can be stored in it, the next backup is full: ${why}`)
  }
}
