import { argumentError } from '../errors.ts'
import type { BackupMachineOptions, BackupMachineResult } from '../live/types.ts'
import type { Leftover, Machine, MachineDisk, MachineOptions } from '../machine/machine.ts'
import {
  CHAIN_OPTIONS,
  COPY_OPTIONS,
  FORMAT,
  IMAGE_OPTIONS,
  NBD_OPTIONS,
  VERIFYING_OPTIONS,
} from '../options.ts'
import {
  BOOLEAN,
  callback,
  checkArgument,
  checkOptions,
  choice,
  list,
  option,
  PATH,
  powerOfTwo,
  type SchemaFor,
  SIGNAL,
  TEXT,
  whole,
} from '../schema.ts'
import { Call } from './call.ts'

export const MACHINE_OPTIONS: SchemaFor<MachineOptions> = {
  name: option(TEXT, "the machine's name in the repository; disk: needs it", {
    fallback: "the hypervisor's",
  }),
  connect: option(TEXT, "libvirt's URI", { value: 'uri', fallback: 'qemu:///system' }),
  nbdAddress: option(TEXT, 'libvirt: HOST:PORT on which QEMU serves the disks', {
    value: 'address',
  }),
  tlsCertificates: option(PATH, 'libvirt: directory of certificates, with --nbd-address', {
    value: 'dir',
  }),
  nbdServer: option(TEXT, "qmp: URI of QEMU's NBD server, where one runs already", {
    value: 'uri',
  }),
  guestAgent: option(TEXT, 'qmp: where the guest agent listens', {
    value: 'address',
    fallback: 'found in QEMU',
  }),
  format: option(FORMAT, 'disk: the format of the disks', {
    letter: 'f',
    value: 'format',
    fallback: 'by their magic',
  }),
  ...CHAIN_OPTIONS,
  signal: option(SIGNAL, 'stops the call'),
}

const { force: _, ...RUN_OPTIONS } = COPY_OPTIONS
const { verify } = VERIFYING_OPTIONS

export const BACKUP_OPTIONS: SchemaFor<BackupMachineOptions> = {
  full: option(BOOLEAN, 'back up every disk in full'),
  incremental: option(BOOLEAN, 'fail where a disk cannot be backed up incrementally'),
  disks: option(list(TEXT), 'only this disk; repeatable', { flag: 'disk', value: 'name' }),
  exclude: option(list(TEXT), 'all disks but this; repeatable', { value: 'name' }),
  checkpoint: option(TEXT, 'name of the point, and of the bitmaps that begin there', {
    fallback: 'the time, UTC',
  }),
  noCheckpoint: option(BOOLEAN, 'begin no bitmaps: the machine stays untouched'),
  rebuild: option(BOOLEAN, 'where a bitmap was lost, compare the disk with its last backup'),
  old: option(choice('keep', 'remove'), 'what becomes of the bitmaps of earlier backups', {
    fallback: 'remove',
  }),
  quiesce: option(BOOLEAN, 'have the guest agent freeze the file systems for the instant'),
  scratch: option(PATH, 'directory of the temporary images', { value: 'dir' }),
  onCbwError: option(
    choice('break-snapshot', 'break-guest-write'),
    'what fails where old content cannot be kept: the backup or the guest',
    { value: 'what' },
  ),
  cbwTimeout: option(whole(0, 2 ** 32 - 1), "seconds that a guest's write may wait for a copy"),
  minClusterSize: option(powerOfTwo(1, 2 ** 31), 'the least that a copy keeps of old content'),
  recipe: option(choice('job', 'filter'), 'how the point in time is made', { value: 'how' }),
  discard: option(BOOLEAN, 'discard what is stored, also where that taints the machine'),
  beforeFreeze: option(callback<() => void | Promise<void>>(), 'called before the instant'),
  afterFreeze: option(callback<() => void | Promise<void>>(), 'called after the instant'),
  onDisk: option(callback<NonNullable<BackupMachineOptions['onDisk']>>(), 'called for each disk'),
  verify,
  ...IMAGE_OPTIONS,
  ...NBD_OPTIONS,
  ...MACHINE_OPTIONS,
  ...RUN_OPTIONS,
}

/**
 * Backs up a machine into a repository, all its disks of one instant: incrementally where a bitmap recorded
 * all writes since the last backup, else in full, and the result says why.
 * @param machine `libvirt:DOMAIN`, `qmp:SOCKET` or `disk:NAME=SOURCE[,NAME=SOURCE…]`
 * @param repository path of a directory, made by the first backup
 * @throws BackupError; nothing of the backup is there then, and the next incremental one has its changes too
 */
export async function backupMachine(
  machine: string,
  repository: string,
  options: BackupMachineOptions = {},
): Promise<BackupMachineResult> {
  checkArgument('machine', TEXT, machine)
  checkArgument('repository', PATH, repository)
  const checked = checkOptions(BACKUP_OPTIONS, options)
  if (checked.full && checked.incremental) {
    throw argumentError('incremental', 'cannot be combined with a full backup of every disk')
  }
  const call = new Call(machine, checked.signal)
  const hooks = {
    beforeFreeze: checked.beforeFreeze && call.taker('beforeFreeze', checked.beforeFreeze),
    afterFreeze: checked.afterFreeze && call.taker('afterFreeze', checked.afterFreeze),
    onDisk: checked.onDisk && call.taker('onDisk', checked.onDisk),
    onProgress: call.callback('onProgress', checked.onProgress),
  }
  return await call.run(async () => {
    const { backupMachine: run } = await import('../live/backup.ts')
    const { Repository } = await import('../repository/repository.ts')
    const result = await withMachine(machine, checked, async (opened) =>
      run(opened, await Repository.make(repository), { ...checked, ...hooks }),
    )
    return { ...(await call.noted(result)), notes: [...result.notes, ...call.notes] }
  })
}

/** What `inspectMachine` finds. */
export interface MachineReport {
  /** As a repository names it. */
  name: string
  disks: MachineDisk[]
  /** What killed runs left behind, in or beside the machine. */
  leftovers: Leftover[]
}

/**
 * Describes a machine: its disks, the health of their bitmaps, what backups are possible, and what a killed
 * run left behind. Nothing is changed.
 * @throws BackupError USAGE, IO, BAD_IMAGE, UNSUPPORTED, NOT_ALLOWED, ABORTED
 */
export async function inspectMachine(
  machine: string,
  options: MachineOptions = {},
): Promise<MachineReport> {
  checkArgument('machine', TEXT, machine)
  const checked = checkOptions(MACHINE_OPTIONS, options)
  return await new Call(machine, checked.signal).run(() =>
    withMachine(machine, checked, async (opened) => ({
      name: opened.name,
      disks: await opened.disks(checked.signal),
      leftovers: await opened.leftovers(checked.signal),
    })),
  )
}

/** Options of `abortMachine`. */
export interface AbortMachineOptions extends MachineOptions {
  /** The repository that the runs wrote to: bitmaps of points that it has stay. */
  repository?: string
}

export const ABORT_OPTIONS: SchemaFor<AbortMachineOptions> = {
  repository: option(PATH, 'the repository that the runs wrote to', { flag: 'repo', value: 'dir' }),
  ...MACHINE_OPTIONS,
}

/**
 * Removes what killed runs left behind, in or beside a machine, and touches nothing of anybody else's. What
 * the guest wrote since the last backup is still in the next incremental one.
 * @returns what was removed
 * @throws BackupError IN_USE if a run is under way in the repository given; USAGE, IO, ABORTED
 */
export async function abortMachine(
  machine: string,
  options: AbortMachineOptions = {},
): Promise<Leftover[]> {
  checkArgument('machine', TEXT, machine)
  const { repository, ...checked } = checkOptions(ABORT_OPTIONS, options)
  const { signal } = checked
  return await new Call(machine, signal).run(() =>
    withMachine(machine, checked, async (opened) => {
      if (repository === undefined) return await opened.clean({ signal })
      const { cleanUp } = await import('../live/clean-up.ts')
      const { Repository } = await import('../repository/repository.ts')
      const folder = await (await Repository.open(repository)).lock(opened.name)
      try {
        return (await cleanUp(opened, folder, signal)).leftovers
      } finally {
        await folder.close()
      }
    }),
  )
}

async function withMachine<T>(
  machine: string,
  options: MachineOptions,
  use: (opened: Machine) => Promise<T>,
): Promise<T> {
  const { openMachine } = await import('../machine/open-machine.ts')
  const { name, connect, nbdAddress, tlsCertificates, nbdServer, guestAgent } = options
  const { format, allowPaths, backingFormat, signal } = options
  const opened = await openMachine(machine, {
    ...{ name, connect, nbdAddress, tlsCertificates, nbdServer, guestAgent },
    ...{ format, allowPaths, backingFormat, signal },
  })
  try {
    return await use(opened)
  } finally {
    await opened.close()
  }
}
