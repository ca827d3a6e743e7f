import { argumentError, throwIfAborted } from '../../errors.ts'
import { withBitmapsOf } from '../../maintain/open-bitmaps.ts'
import type {
  CleanOptions,
  FreezeOptions,
  Leftover,
  Machine,
  MachineDisk,
  MachineOptions,
  PointInTime,
} from '../machine.ts'
import { freezeDisks } from './freeze-disks.ts'
import { HeldDisk, isExport } from './held-disk.ts'
import { inspectDisk } from './inspect-disk.ts'
import { type NamedDisk, parseDisks } from './parse-disks.ts'
import { type Mark, marksOf } from './run-marks.ts'

/**
 * Opens disks at rest as a machine: images, devices, and exports that do not change.
 * @param address `NAME=SOURCE[,NAME=SOURCE…]`
 * @throws BackupError USAGE
 */
export async function openDisks(address: string, options: MachineOptions): Promise<Machine> {
  const { name, connect, nbdAddress, tlsCertificates, nbdServer, guestAgent, ...access } = options
  if (!name) throw argumentError('name', 'missing; disks at rest have no name together')
  for (const [option, value] of Object.entries({ connect, nbdAddress, tlsCertificates })) {
    if (value !== undefined) throw argumentError(option, 'is only for libvirt machines')
  }
  for (const [option, value] of Object.entries({ nbdServer, guestAgent })) {
    if (value !== undefined) throw argumentError(option, 'is only for qmp machines')
  }
  return restingDisks(`disk:${address}`, name, parseDisks(address), access)
}

/** Disks at rest as a machine. */
export function restingDisks(
  title: string,
  name: string,
  disks: readonly NamedDisk[],
  access: Access,
): Machine {
  return new DisksAtRest(title, name, disks, access)
}

type Access = Pick<MachineOptions, 'format' | 'allowPaths' | 'backingFormat'>

class DisksAtRest implements Machine {
  readonly title: string
  readonly name: string
  readonly #disks: readonly NamedDisk[]
  readonly #access: Access

  constructor(title: string, name: string, disks: readonly NamedDisk[], access: Access) {
    const { format, allowPaths, backingFormat } = access
    this.title = title
    this.name = name
    this.#disks = disks
    this.#access = { format, allowPaths, backingFormat }
  }

  async disks(signal?: AbortSignal): Promise<MachineDisk[]> {
    const disks: MachineDisk[] = []
    for (const disk of this.#disks) disks.push(await inspectDisk(disk, this.#access, signal))
    return disks
  }

  async freeze(options: FreezeOptions): Promise<PointInTime> {
    const { scratch, quiesce, onCbwError, recipe, minClusterSize, cbwTimeout, discard } = options
    const given = { scratch, quiesce, onCbwError, recipe, minClusterSize, cbwTimeout, discard }
    for (const [name, value] of Object.entries(given)) {
      if (value === undefined || value === false) continue
      throw argumentError(name, 'is for running machines; disks at rest need none')
    }
    return await freezeDisks(this.#disks, this.#access, options)
  }

  async leftovers(signal?: AbortSignal): Promise<Leftover[]> {
    const found: Leftover[] = []
    for (const disk of this.#disks) {
      for (const mark of await this.#marks(disk, signal)) found.push(leftoverOf(disk, mark))
    }
    return found
  }

  async clean({ signal, isStored = () => false }: CleanOptions = {}): Promise<Leftover[]> {
    const cleaned: Leftover[] = []
    for (const disk of this.#disks) {
      const marks = await this.#marks(disk, signal)
      if (marks.length === 0) continue
      const held = await HeldDisk.hold(disk, this.#access, { editing: true, signal })
      try {
        await held.end(() => true, isStored)
        cleaned.push(...marks.map((mark) => leftoverOf(disk, mark)))
      } finally {
        await held.release()
      }
    }
    return cleaned
  }

  async close(): Promise<void> {}

  /** Also while somebody else uses the disk. */
  async #marks(disk: NamedDisk, signal?: AbortSignal): Promise<Mark[]> {
    if (isExport(disk)) return []
    throwIfAborted(signal, disk.source)
    const { source, format = this.#access.format } = disk
    const options = { format, forceShare: true }
    return await withBitmapsOf(source, options, async (_file, _header, found) => marksOf(found))
  }
}

function leftoverOf(disk: NamedDisk, { run, checkpoint }: Mark): Leftover {
  return { kind: 'bitmap', name: checkpoint, run, disk: disk.name }
}
