import { BackupError, messageOf, unsupported } from '../../errors.ts'
import { restingDisks } from '../disks/disks.ts'
import type { NamedDisk } from '../disks/parse-disks.ts'
import type { FreezeOptions, Machine, MachineOptions, PointInTime } from '../machine.ts'
import { defineCheckpoint, forgetCheckpoint, listCheckpoints } from './checkpoints.ts'
import { type Domain, type DomainDisk, readDefinition, readVersions } from './domain.ts'
import type { Virsh } from './virsh.ts'

/** Why the files of a disk of a domain that is shut off cannot be read; undefined if they can. */
export function unreadable({ chain: [{ format, path }] }: DomainDisk): string | undefined {
  if (path === undefined) return 'it is no file of this host, and the domain is shut off'
  return format === 'raw' || format === 'qcow2' ? undefined : `${format} images are not read`
}

/** The disks of a domain that is shut off, as disks at rest. */
export function disksAtRest(virsh: Virsh, domain: Domain, options: MachineOptions): Machine {
  const { allowPaths, backingFormat } = options
  const disks = domain.disks.flatMap((disk): NamedDisk[] => {
    const [{ path, format }] = disk.chain
    if (path === undefined || unreadable(disk) !== undefined) return []
    return [{ name: disk.name, source: path, format: format === 'raw' ? 'raw' : 'qcow2' }]
  })
  return restingDisks(virsh.title, domain.name, disks, { allowPaths, backingFormat })
}

/**
 * Locks the files of a domain that is shut off, as QEMU does, so that it cannot start meanwhile. The new
 * bitmaps become a checkpoint of libvirt's once the backup is stored.
 * @throws BackupError UNSUPPORTED, IN_USE, BAD_BITMAP, TARGET_EXISTS, IO, ABORTED
 */
export async function freezeStopped(
  virsh: Virsh,
  domain: Domain,
  machine: MachineOptions,
  options: FreezeOptions,
): Promise<PointInTime> {
  const { disks, run, point, signal, beforeFreeze, afterFreeze } = options
  const { uuid } = domain
  if (!virsh.isLocal) {
    const why = 'the domain is shut off, and its files are on another host: run this program there'
    throw unsupported(virsh.title, why)
  }
  for (const { name } of disks) {
    const why = unreadable(domain.disks.find((disk) => disk.name === name)!)
    if (why !== undefined) throw unsupported(`${virsh.title}: disk ${name}`, why)
  }
  const begun = disks.filter(({ checkpoint }) => checkpoint !== undefined)
  const checkpoint = begun[0]?.checkpoint
  const checkpoints = await listCheckpoints(virsh, uuid, false, signal)
  if (checkpoints.some(({ name }) => name === checkpoint)) {
    const why = `there is a checkpoint ${checkpoint} already; give this one another name`
    throw new BackupError('TARGET_EXISTS', virsh.title, why)
  }
  const definition = await readDefinition(virsh, uuid, signal)
  const versions = await readVersions(virsh, signal)
  const notes = await savedStateNotes(virsh, uuid, signal)
  // Nothing of a domain that is shut off needs to be frozen, kept or copied before writes.
  const resting = disksAtRest(virsh, domain, machine)
  const held = await resting.freeze({ disks, run, point, signal, beforeFreeze, afterFreeze })
  const theirs = new Set(checkpoints.filter(({ isOurs }) => !isOurs).map(({ name }) => name))

  async function succeed({ remove }: { remove: readonly string[] }): Promise<string[]> {
    const stay = remove.filter((name) => theirs.has(name))
    const going = remove.filter((name) => !theirs.has(name))
    const notes = stay.map((name) => `checkpoint ${name} stays: it was made by others`)
    notes.push(...(await held.succeed({ remove: going })))
    const attempt = async (what: string, step: () => Promise<void>) => {
      await step().catch((error) => notes.push(`${what}: ${messageOf(error)}`))
    }
    for (const { name } of checkpoints.filter(({ name }) => going.includes(name))) {
      await attempt(`checkpoint ${name} stays`, () => forgetCheckpoint(virsh, uuid, name))
    }
    const recorded = held.disks.flatMap(({ name, checkpoint }) => (checkpoint ? [name] : []))
    if (checkpoint !== undefined && recorded.length > 0) {
      const why = 'libvirt does not know the new checkpoint, the next backup is full'
      await attempt(why, () => defineCheckpoint(virsh, uuid, checkpoint, recorded, held.time))
    }
    return notes
  }

  return {
    time: held.time,
    disks: held.disks,
    versions,
    definition,
    notes: [...notes, ...held.notes],
    lost: held.lost,
    succeed,
    fail: () => held.fail(),
  }
}

async function savedStateNotes(
  virsh: Virsh,
  uuid: string,
  signal?: AbortSignal,
): Promise<string[]> {
  const info = await virsh.run(['dominfo', `--domain=${uuid}`], { signal })
  if (!/^Managed save:\s+yes/m.test(info)) return []
  return [
    "the domain's memory is saved (virsh managedsave) and not in the backup, whose disks are as after a power cut",
  ]
}
