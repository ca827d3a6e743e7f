import {
  abortedError,
  argumentError,
  BackupError,
  messageOf,
  throwIfAborted,
  usageError,
} from '../../errors.ts'
import { lstat } from '../../files.ts'
import { defaultGranularity } from '../../format/qcow2/bitmaps.ts'
import { DEFAULT_CLUSTER_SIZE } from '../../options.ts'
import { quoted } from '../../text.ts'
import type { FreezeDisk, FreezeOptions, FrozenDisk } from '../machine.ts'
import { CHECKPOINT_NAME, checkpointXml } from './checkpoints.ts'
import { type Discardable, exportDiscardable, TAINT_NOTE } from './discard.ts'
import { type Domain, readDefinition, readSizes, readVersions } from './domain.ts'
import { backupXml, exportedBitmap, exportUri, type NbdServer, readJob } from './job.ts'
import { beginRun, describeOwner } from './owner.ts'
import { DEFAULT_PLACE, makePlaces, type Places, socketOf } from './places.ts'
import { LibvirtPoint, type RunState, standsForIoError, stateOf, undo } from './point.ts'
import type { TcpServer } from './server.ts'
import { lookAtTop, type TopImage } from './top-image.ts'
import { documentPath, saidBy, type Virsh } from './virsh.ts'

/** The guest agent may have to wait for the guest's own writes, ms. */
const QUIESCE_LIMIT_MS = 60_000

/**
 * Begins a backup job of a domain that runs, with a checkpoint: all disks are of one instant.
 * @throws BackupError IN_USE if the domain is busy; BAD_BITMAP, IO, USAGE, ABORTED; nothing of the run is
 * left then
 */
export async function freezeActive(
  virsh: Virsh,
  domain: Domain,
  options: FreezeOptions,
  tcp: TcpServer | undefined,
): Promise<LibvirtPoint> {
  const { signal, onCbwError, cbwTimeout, minClusterSize, recipe } = options
  for (const [name, value] of Object.entries({ onCbwError, cbwTimeout, minClusterSize, recipe })) {
    if (value !== undefined) throw argumentError(name, "libvirt's backup jobs have no such setting")
  }
  const checkpoint = checkpointOf(options.disks)
  await requireIdle(virsh, domain.uuid, signal)
  const definition = await readDefinition(virsh, domain.uuid, signal)
  const versions = await readVersions(virsh, signal)
  const sizes = await readSizes(virsh, domain.uuid, signal)
  const tops = new Map<string, TopImage | undefined>()
  for (const disk of domain.disks) tops.set(disk.name, await lookAtTop(virsh, disk))
  const stoodBefore = standsForIoError(await stateOf(virsh, domain.uuid))
  const { mark, end } = await beginRun(options.run)
  const run: RunState = { virsh, uuid: domain.uuid, mark, checkpoint, stoodBefore, end }
  const notes: string[] = []
  try {
    if (virsh.isLocal) {
      const { scratch, quiesce = false, discard } = options
      const discards = discard ? options.disks.length : 0
      run.places = await makePlaces(mark, domain, { scratch, quiesce, discards })
    }
    const server: NbdServer = tcp ?? { kind: 'unix', socket: socketOf(requireLocal(run.places)) }
    const scratchOf = (disk: string) =>
      run.places
        ? `${run.places.scratch}/${disk}.scratch`
        : `${options.scratch ?? DEFAULT_PLACE}/${mark}.${disk}.scratch`
    const jobDisks = options.disks.map(({ name, since }) => {
      return { name, since, scratch: scratchOf(name) }
    })
    const documents = [backupXml(server, jobDisks)]
    if (checkpoint !== undefined) {
      const wanted = options.disks.map((disk): [string, boolean] => {
        return [disk.name, disk.checkpoint !== undefined]
      })
      documents.push(checkpointXml(checkpoint, mark, new Map(wanted)))
    }
    const time = await begin(virsh, domain.uuid, documents, options, notes)
    throwIfAborted(signal, virsh.title)
    const discardable = new Map<string, Discardable>()
    if (options.discard) {
      run.discards = options.disks.length
      const wanted = options.disks.map(({ name, since }) => {
        return { ...domain.disks.find((disk) => disk.name === name)!, since }
      })
      const { uuid } = domain
      const found = await exportDiscardable(virsh, uuid, options.run, wanted, versions.qemu)
      for (const [name, disk] of found) discardable.set(name, disk)
      notes.push(TAINT_NOTE)
    }
    const disks = options.disks.map((disk): FrozenDisk => {
      const scratch = run.places && scratchOf(disk.name)
      return {
        name: disk.name,
        virtualSize: sizes.get(disk.name) ?? 0,
        ...accessTo(disk, discardable.get(disk.name), server, tcp),
        ...(disk.checkpoint !== undefined && {
          checkpoint: {
            name: disk.checkpoint,
            granularity: defaultGranularity(
              tops.get(disk.name)?.clusterSize ?? DEFAULT_CLUSTER_SIZE,
            ),
          },
        }),
        ...(scratch && { scratchBytes: () => allocatedBytes(scratch) }),
      }
    })
    return new LibvirtPoint(run, {
      time,
      disks,
      definition,
      versions,
      notes,
    })
  } catch (error) {
    const left = await undo(run)
    if (left.length === 0 || !(error instanceof BackupError)) throw error
    const { code, what, why, cause } = error
    throw new BackupError(code, what, `${why}; and ${left.join('; ')}`, { cause })
  }
}

/** How a disk of a job is read. */
function accessTo(
  { name, since }: FreezeDisk,
  discardable: Discardable | undefined,
  server: NbdServer,
  tcp: TcpServer | undefined,
): Pick<FrozenDisk, 'source' | 'open' | 'discardGranule'> {
  const uri = (exported: string) => exportUri(server, exported, tcp?.host, tcp?.parameters)
  if (discardable) {
    const { exportName, open, discardGranule } = discardable
    return { source: uri(exportName), open, discardGranule }
  }
  const bitmap = since === undefined ? {} : { bitmap: exportedBitmap(name) }
  return { source: uri(name), open: { format: 'raw', ...bitmap } }
}

/** Freezes the guest's file systems if that is asked for, begins the job, and thaws them at once. */
async function begin(
  virsh: Virsh,
  uuid: string,
  documents: readonly string[],
  { quiesce, signal, beforeFreeze, afterFreeze }: FreezeOptions,
  notes: string[],
): Promise<Date> {
  const command = ['backup-begin', `--domain=${uuid}`, `--backupxml=${documentPath(0)}`]
  if (documents.length > 1) command.push(`--checkpointxml=${documentPath(1)}`)
  await beforeFreeze?.()
  let time: Date
  let mayBeFrozen = false
  // Hooks come in pairs: who was told of the freeze is told of its end, also of one that failed.
  try {
    throwIfAborted(signal, virsh.title)
    if (quiesce) {
      mayBeFrozen = true
      await freezeGuest(virsh, uuid).catch((error) => {
        if (saidBy(error.cause, FROZEN_BY_OTHERS)) mayBeFrozen = false
        throw error
      })
    }
    // Without the signal: a command that was stopped half-way may still begin the job.
    time = new Date()
    await virsh.run(command, { documents }).catch((error) => {
      throw explain(error, virsh)
    })
  } finally {
    if (mayBeFrozen) {
      await thaw(virsh, uuid).catch((error) => {
        notes.push(
          `the guest's file systems may still be frozen; virsh domfsthaw thaws them: ${messageOf(error)}`,
        )
      })
    }
    await afterFreeze?.()
  }
  if (signal?.aborted) throw abortedError(virsh.title, signal)
  return time
}

/**
 * An agent whose guest is frozen already refuses the command, as one does whose administrator has blocked
 * it. What somebody else froze is not ours to thaw.
 */
const FROZEN_BY_OTHERS = /guest-fsfreeze-freeze.*(has been disabled|not found|not allowed)/i

async function freezeGuest(virsh: Virsh, uuid: string): Promise<void> {
  try {
    await virsh.run(['domfsfreeze', `--domain=${uuid}`], { limitMs: QUIESCE_LIMIT_MS })
  } catch (error) {
    const why = `the guest's file systems cannot be frozen: ${error instanceof BackupError ? error.why : error}`
    throw new BackupError('IO', virsh.title, why, { cause: error })
  }
}

/** Thaws the guest's file systems; those that are not frozen are left alone. */
export async function thaw(virsh: Virsh, uuid: string): Promise<void> {
  await virsh.run(['domfsthaw', `--domain=${uuid}`], { limitMs: QUIESCE_LIMIT_MS })
}

/** libvirt would wait 30 s, and then tell of a lock. */
async function requireIdle(virsh: Virsh, uuid: string, signal?: AbortSignal): Promise<void> {
  const job = await readJob(virsh, uuid, signal)
  if (!job) return
  const { operation, owner } = job
  const end = 'virsh domjobabort ends it'
  const why = owner
    ? `a backup of ${describeOwner(owner)} is going on; ${end}`
    : operation === 'Backup'
      ? `a backup job of another program is going on; ${end}`
      : `the domain is busy: ${operation}`
  throw new BackupError('IN_USE', virsh.title, why)
}

/** The one name of the checkpoint that some disks are to get. */
function checkpointOf(disks: readonly FreezeDisk[]): string | undefined {
  const names = new Set(disks.flatMap(({ checkpoint }) => checkpoint ?? []))
  if (names.size > 1) throw usageError('checkpoint', 'is the same for all disks of a domain')
  const [name] = names
  if (name === undefined || CHECKPOINT_NAME.test(name)) return name
  const why = 'is no name of a checkpoint: it has letters of ASCII, digits, . _ and -, not . first'
  throw usageError(quoted(name), why)
}

function explain(error: unknown, { title }: Virsh): unknown {
  const broken = saidBy(error, /missing or broken bitmap '(.*?)' for disk '(.*?)'/)
  if (broken) {
    const [, bitmap, disk] = broken
    const why = `checkpoint ${bitmap} is broken: QEMU ended before it stored the bitmap of ${disk}`
    return new BackupError('BAD_BITMAP', title, why, { cause: error })
  }
  const missing = saidBy(error, /no domain checkpoint with matching name '(.*?)'/i)
  if (missing) {
    const why = `there is no checkpoint ${missing[1]}`
    return new BackupError('BAD_BITMAP', title, why, { cause: error })
  }
  const taken = saidBy(error, /domain moment (.*?) already exists/)
  if (taken) {
    const why = `there is a checkpoint ${taken[1]} already; give this one another name`
    return new BackupError('TARGET_EXISTS', title, why, { cause: error })
  }
  if (saidBy(error, /cannot acquire state change lock/)) {
    return new BackupError('IN_USE', title, 'the domain is busy with another job', { cause: error })
  }
  return error
}

function requireLocal(places: Places | undefined): Places {
  if (places) return places
  throw new BackupError('INTERNAL', 'libvirt', 'a remote host without an address')
}

async function allocatedBytes(path: string): Promise<number> {
  const { blocks } = await lstat(path)
  return Number(blocks) * 512
}
