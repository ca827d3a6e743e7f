import type { BackupError, ErrorCode } from '../errors.ts'
import type { Range } from '../extents/range-set.ts'
import type { BitmapHealth } from '../source/bitmaps/health.ts'
import type { Format, OpenOptions } from '../source/source-chain.ts'

/** Ids of runs: 12 hexadecimal digits, short enough for the names of QEMU's nodes (31 bytes). */
export const RUN_ID = /^[0-9a-f]{12}$/

/** What everything that a run makes in or beside a machine is named by, before the run's id. */
export const RUN_PREFIX = 'qcow2-backup-'

/** How a machine is opened. Each kind of machine refuses the options that are not for it. */
export interface MachineOptions {
  /** What a repository calls the machine. Default: what the hypervisor calls it. */
  name?: string
  /** libvirt's URI. Default `qemu:///system`. */
  connect?: string
  /**
   * Of a libvirt domain: `HOST:PORT` on which QEMU serves its disks; needed for a remote host. Default: a
   * Unix socket.
   */
  nbdAddress?: string
  /**
   * With `nbdAddress`: the connection is encrypted; a directory with `ca-cert.pem`, and `client-cert.pem`
   * and `client-key.pem` where the host verifies clients.
   */
  tlsCertificates?: string
  /** Of disks at rest: the format of each. Default: recognised by its magic. */
  format?: Format
  /** Of disks at rest: directories below which files named inside images may be opened, too. */
  allowPaths?: readonly string[]
  /** Of disks at rest: the format of backing files whose images do not record it. */
  backingFormat?: Format
  /**
   * Of a QEMU whose NBD server runs already: its URI, whatever export that names. A QEMU has one at most, and ours
   * is not started then. Default: there is none.
   */
  nbdServer?: string
  /** Of a QEMU: where its guest agent listens, a path or `HOST:PORT`. Default: found in QEMU. */
  guestAgent?: string
  signal?: AbortSignal
}

/** Whether something can be done with a disk; `reason` says, in words, why not. */
export interface Ability {
  possible: boolean
  reason?: string
  /** Of the error with which a backup is refused for this reason. Default: UNSUPPORTED. */
  code?: ErrorCode
}

/** A disk of a machine. */
export interface MachineDisk {
  /** Of the disk in its machine, the same in every run: `vda`, or what the user gave. */
  name: string
  /** Name of its topmost block node in QEMU, where there is one. */
  node?: string
  /** Of its topmost image, where it is a file or a device. */
  path?: string
  format: string
  /** Bytes. */
  virtualSize: number
  /** The bitmaps along its backing chain, by the rules of `validateBitmapChain`. */
  bitmaps: readonly BitmapHealth[]
  /** It can be read as it is at one instant. */
  full: Ability
  /** It can hold a bitmap, so that the next backup can be an incremental one. */
  incremental: Ability
}

/** What a killed run left in or beside a machine. */
export interface Leftover {
  kind: 'job' | 'export' | 'server' | 'node' | 'file' | 'bitmap' | 'checkpoint'
  name: string
  /** The run that made it. */
  run: string
  /** The disk that it belongs to, where it belongs to one. */
  disk?: string
}

/** A disk that is to be frozen. */
export interface FreezeDisk {
  /** `MachineDisk.name`. */
  name: string
  /** The bitmap, or checkpoint, that records the writes since the last backup; without: a full backup. */
  since?: string
  /** The bitmap to begin at this instant; without: none. */
  checkpoint?: string
}

/** What QEMU does when it cannot keep the old content of a cluster that the guest writes to. */
export type CbwErrorPolicy = 'break-snapshot' | 'break-guest-write'

/** How a point in time is made. Sizes are bytes. */
export interface FreezeOptions {
  disks: readonly FreezeDisk[]
  /** Id of this run, `RUN_ID`: what it makes in the machine bears it. */
  run: string
  /** Name of the point: libvirt's checkpoint gets it. */
  point: string
  /** Have the guest agent freeze the file systems for the instant. */
  quiesce?: boolean
  /** Directory of the temporary images; default: beside the disk, or the driver's. */
  scratch?: string
  /** Default: break-snapshot where QEMU has it. */
  onCbwError?: CbwErrorPolicy
  /** Seconds that the guest's write may wait for the copy; QEMU's `cbw-timeout`. */
  cbwTimeout?: number
  /** QEMU's `min-cluster-size`. */
  minClusterSize?: number
  /** How the filter gets above the disk; default: a backup job (A). See docs/live.md. */
  recipe?: 'job' | 'filter'
  /** Discard what is stored, also where that has side effects (libvirt). Default: where it has none. */
  discard?: boolean
  signal?: AbortSignal
  /** Called right before the instant, and right after it. */
  beforeFreeze?: () => void | Promise<void>
  afterFreeze?: () => void | Promise<void>
}

/** A disk as it was at the instant. */
export interface FrozenDisk {
  name: string
  /** Bytes. */
  virtualSize: number
  /** A path or an NBD URI, as `openSource` takes it. */
  source: string
  /** How it is opened; `bitmap` where it was frozen with `since`. */
  open: OpenOptions
  /** The bitmap that began at the instant, bytes per bit; missing where the disk got none. */
  checkpoint?: { name: string; granularity: number }
  /** The granule in which stored ranges can be discarded, bytes; without: they cannot. */
  discardGranule?: number
  /** Ranges whose old content the temporary image holds now: to be read first. */
  heldRanges?(): Promise<readonly Range[]>
  /** Of the temporary image now, bytes allocated. */
  scratchBytes?(): Promise<number>
}

/** One instant of a machine, kept by its hypervisor until `succeed` or `fail`. */
export interface PointInTime {
  /** The instant. */
  readonly time: Date
  readonly disks: readonly FrozenDisk[]
  /** Names and versions of the hypervisor's programs, for the record. */
  readonly versions: Readonly<Record<string, string>>
  /** The machine's definition at the instant: libvirt's XML. */
  readonly definition?: string
  /** Caveats, for the result. */
  readonly notes: readonly string[]
  /** Aborts when the point is lost; the reason is a BackupError that says how. */
  readonly lost: AbortSignal
  /**
   * Asked when a read failed: how the point was lost, if that is why. Not every loss is told: of
   * `break-snapshot` a client sees only EINVAL.
   */
  whyLost?(): Promise<BackupError | undefined>
  /**
   * The backup is stored: removes everything of this run but the new bitmaps.
   * @param options `remove`: names of bitmaps, or checkpoints, of earlier backups in the same repository,
   * which no later backup needs. Those that a disk does not have are ignored
   * @returns notes: what could not be removed
   */
  succeed(options: { remove: readonly string[] }): Promise<string[]>
  /**
   * The backup is not stored: as if this run had never been, so that the next incremental has its
   * changes too. Never rejects; may be called twice.
   * @returns notes: what could not be cleaned
   */
  fail(): Promise<string[]>
}

/** How leftovers are removed. */
export interface CleanOptions {
  signal?: AbortSignal
  /**
   * Whether the backup of a run was stored: its record exists, so its new bitmaps are valid and stay, as
   * after `succeed`. Default: none was, and the bitmaps that began with it go, as after `fail`.
   */
  isStored?: (run: string) => boolean
}

/** What is backed up as a unit, all disks at one instant. The caller that opened it closes it. */
export interface Machine {
  /** As messages name it: `libvirt:web1`. */
  readonly title: string
  /** As a repository names it: `web1`. */
  readonly name: string
  disks(signal?: AbortSignal): Promise<MachineDisk[]>
  /** @throws BackupError; nothing of this run is left then */
  freeze(options: FreezeOptions): Promise<PointInTime>
  leftovers(signal?: AbortSignal): Promise<Leftover[]>
  /**
   * Removes what runs of ours left behind, merges the changes recorded meanwhile back, and touches
   * nothing of anybody else's. A bitmap that began at a point (`FreezeDisk.checkpoint`) has no name that
   * says whose it is: what a driver makes with it must tell, until `succeed` or `fail`, that it belongs to a run
   * that has not ended.
   * @returns what was removed
   */
  clean(options?: CleanOptions): Promise<Leftover[]>
  close(): Promise<void>
}
