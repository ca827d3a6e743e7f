import { argumentError, BackupError, unsupported, usageError } from '../../errors.ts'
import type { BitmapHealth } from '../../source/bitmaps/health.ts'
import type {
  Ability,
  CleanOptions,
  FreezeOptions,
  Leftover,
  Machine,
  MachineDisk,
  MachineOptions,
  PointInTime,
} from '../machine.ts'
import { ABORTS_WITH_THREAD, abortsWithThread } from '../threads.ts'
import { type Checkpoint, listCheckpoints } from './checkpoints.ts'
import {
  type Domain,
  type DomainDisk,
  findDomain,
  readDomain,
  readSizes,
  readVersions,
} from './domain.ts'
import { freezeActive } from './freeze.ts'
import { cleanLeftovers, findLeftovers } from './leftovers.ts'
import { serverOf } from './server.ts'
import { disksAtRest, freezeStopped, unreadable } from './stopped.ts'
import { lookAtTop } from './top-image.ts'
import { DEFAULT_CONNECT, Virsh } from './virsh.ts'

/**
 * Opens a libvirt domain, running or shut off. Everything is done by `virsh`.
 * @param domain its name or UUID
 * @throws BackupError IO if there is no virsh, libvirt or domain; USAGE, ABORTED
 */
export async function openLibvirtMachine(
  domain: string,
  options: MachineOptions = {},
): Promise<Machine> {
  if (domain === '') throw usageError('libvirt:', 'the name of the domain is missing')
  const { connect = DEFAULT_CONNECT, format, nbdServer, guestAgent, signal } = options
  if (format !== undefined) throw argumentError('format', 'is what the domain says')
  for (const [option, value] of Object.entries({ nbdServer, guestAgent })) {
    if (value !== undefined) throw argumentError(option, 'is only for qmp machines')
  }
  const virsh = new Virsh(connect, `libvirt:${domain}`)
  const found = await findDomain(virsh, domain, signal)
  return new LibvirtMachine(virsh, found.uuid, options.name ?? found.name, options)
}

class LibvirtMachine implements Machine {
  readonly title: string
  readonly name: string
  readonly #virsh: Virsh
  readonly #uuid: string
  readonly #options: MachineOptions

  constructor(virsh: Virsh, uuid: string, name: string, options: MachineOptions) {
    this.title = virsh.title
    this.name = name
    this.#virsh = virsh
    this.#uuid = uuid
    this.#options = options
  }

  async disks(signal?: AbortSignal): Promise<MachineDisk[]> {
    const domain = await readDomain(this.#virsh, this.#uuid, signal)
    return domain.isActive
      ? await this.#activeDisks(domain, signal)
      : await this.#stoppedDisks(domain, signal)
  }

  async freeze(options: FreezeOptions): Promise<PointInTime> {
    const domain = await readDomain(this.#virsh, this.#uuid, options.signal)
    for (const { name } of options.disks) {
      if (domain.disks.some((disk) => disk.name === name)) continue
      const names = domain.disks.map((disk) => disk.name).join(', ')
      throw new BackupError('USAGE', this.title, `has no disk ${name}; it has ${names}`)
    }
    if (!domain.isActive) return await freezeStopped(this.#virsh, domain, this.#options, options)
    const { qemu } = await readVersions(this.#virsh, options.signal)
    for (const disk of domain.disks) {
      const why = whyThread(disk, qemu)
      if (!why || !options.disks.some(({ name }) => name === disk.name)) continue
      throw unsupported(`${this.title}: disk ${disk.name}`, why)
    }
    const server = serverOf(this.#virsh, this.#options)
    return await freezeActive(this.#virsh, domain, options, server)
  }

  async leftovers(signal?: AbortSignal): Promise<Leftover[]> {
    const found = await findLeftovers(this.#virsh, this.#uuid, signal)
    const resting = await this.#resting(signal)
    return [...found, ...((await resting?.leftovers(signal)) ?? [])]
  }

  async clean(options: CleanOptions = {}): Promise<Leftover[]> {
    const cleaned = await cleanLeftovers(this.#virsh, this.#uuid, options)
    const resting = await this.#resting(options.signal)
    return [...cleaned, ...((await resting?.clean(options)) ?? [])]
  }

  async #activeDisks(domain: Domain, signal?: AbortSignal): Promise<MachineDisk[]> {
    const virsh = this.#virsh
    const sizes = await readSizes(virsh, this.#uuid, signal)
    const checkpoints = await listCheckpoints(virsh, this.#uuid, true, signal)
    const { libvirt, qemu } = await readVersions(virsh, signal)
    const host: Ability = isSupported(libvirt)
      ? { possible: true }
      : { possible: false, reason: `libvirt ${libvirt} has no backup jobs: 7.2 is the first` }
    return await Promise.all(
      domain.disks.map(async (disk) => {
        const [{ format, path, node }] = disk.chain
        const cannot = disk.cannot ?? whyThread(disk, qemu)
        const full = cannot ? { possible: false, reason: cannot } : host
        return {
          name: disk.name,
          ...(node && { node }),
          ...(path && { path }),
          format,
          virtualSize: sizes.get(disk.name) ?? 0,
          bitmaps: checkpoints.flatMap((checkpoint) => healthOf(checkpoint, disk)),
          full,
          incremental: full.possible ? await holdsBitmaps(virsh, disk) : full,
        }
      }),
    )
  }

  /** Of a domain that is shut off. */
  async #stoppedDisks(domain: Domain, signal?: AbortSignal): Promise<MachineDisk[]> {
    const resting = disksAtRest(this.#virsh, domain, this.#options)
    const readable = this.#virsh.isLocal ? await resting.disks(signal) : []
    const checkpoints = await listCheckpoints(this.#virsh, this.#uuid, false, signal)
    return domain.disks.map((disk) => {
      const found = readable.find(({ name }) => name === disk.name)
      if (found) return { ...found, bitmaps: [...found.bitmaps, ...lost(checkpoints, found)] }
      const reason = unreadable(disk) ?? 'the domain is shut off, and its files are on another host'
      const no = { possible: false, reason }
      const [{ format, path }] = disk.chain
      const { name } = disk
      const facts = { name, ...(path && { path }), format, virtualSize: 0, bitmaps: [] }
      return { ...facts, full: no, incremental: no }
    })
  }

  /** The disks of the domain if it is shut off, and of this host. */
  async #resting(signal?: AbortSignal): Promise<Machine | undefined> {
    if (!this.#virsh.isLocal) return undefined
    const domain = await readDomain(this.#virsh, this.#uuid, signal)
    return domain.isActive ? undefined : disksAtRest(this.#virsh, domain, this.#options)
  }

  async close(): Promise<void> {}
}

/** Backup jobs with checkpoints, incremental for each disk on its own. */
/** Why a disk of a running domain must not be exported. @param qemu its version */
function whyThread({ hasThread }: DomainDisk, qemu: string | undefined): string | undefined {
  return hasThread && abortsWithThread(qemu) ? ABORTS_WITH_THREAD : undefined
}

function isSupported(version = ''): boolean {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(version) ?? []
  // What says no version is asked all the same.
  return major === undefined || Number(major) > 7 || (Number(major) === 7 && Number(minor) >= 2)
}

async function holdsBitmaps(virsh: Virsh, disk: DomainDisk): Promise<Ability> {
  const [{ format, path }] = disk.chain
  if (format !== 'qcow2') {
    return { possible: false, reason: `a ${format} image holds no bitmaps: only full backups` }
  }
  if ((await lookAtTop(virsh, disk))?.version === 2) {
    const reason = `${path} is a qcow2 image of version 2, which holds no bitmaps: only full backups`
    return { possible: false, reason: `${reason}; qemu-img amend -o compat=1.1 makes it version 3` }
  }
  return { possible: true }
}

/** Checkpoints of a disk of a domain that is shut off whose bitmaps are not in its image. */
function lost(checkpoints: readonly Checkpoint[], { name, bitmaps }: MachineDisk): BitmapHealth[] {
  const without = checkpoints.filter((checkpoint) => {
    const isOfDisk = checkpoint.disks.some((disk) => disk.name === name)
    return isOfDisk && !bitmaps.some((bitmap) => bitmap.name === checkpoint.name)
  })
  return without.map((checkpoint) => {
    const why = 'its bitmap is not in the image: QEMU ended before it stored it'
    const reasons = [`checkpoint ${checkpoint.name} is broken: ${why}`]
    return { name: checkpoint.name, valid: false, reasons, notes: [], images: [] }
  })
}

/** A checkpoint as a bitmap of a disk. */
function healthOf({ name, disks }: Checkpoint, disk: DomainDisk): BitmapHealth[] {
  const found = disks.find((one) => one.name === disk.name)
  if (!found) return []
  const reasons = found.isBroken
    ? [
        `checkpoint ${name} is broken: its bitmap in the images of ${disk.name} is missing, or QEMU ended before it stored it`,
      ]
    : []
  const image = disk.chain[0].path ?? disk.name
  const place = { image, present: true, recording: true, inconsistent: found.isBroken }
  return [
    {
      ...{ name, valid: reasons.length === 0, reasons, notes: [] },
      images: [{ ...place, granularity: null }],
    },
  ]
}
