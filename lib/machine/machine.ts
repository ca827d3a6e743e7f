import type { Range } from '../extents/range-set.ts'
import type { BitmapHealth } from '../source/bitmaps/health.ts'
import type { OpenOptions } from '../source/source-chain.ts'

/** Whether something can be done with a disk; `reason` says, in words, why not. */
export interface Ability {
  possible: boolean
  reason?: string
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
  /** Id of this run: what it makes in the machine bears it. */
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
  /** The granule in which stored ranges can be discarded, bytes; without: they cannot. */
  discardGranule?: number
  /** Ranges whose old content the temporary image holds now: to be read first. */
  heldRanges?(): Promise<readonly Range[]>
  /** Of the temporary image now, bytes allocated. */
  scratchBytes?(): Promise<number>
}

/** What is to become of the bitmap of the last backup once this one is stored. */
export type OldCheckpoint = 'keep' | 'remove'

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
   * The backup is stored: removes everything of this run but the new bitmaps.
   * @returns notes
   */
  succeed(options: { old: OldCheckpoint }): Promise<string[]>
  /**
   * The backup is not stored: as if this run had never been, so that the next incremental has its
   * changes too. Never rejects; may be called twice.
   * @returns notes: what could not be cleaned
   */
  fail(): Promise<string[]>
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
   * nothing of anybody else's.
   * @returns what was removed
   */
  clean(signal?: AbortSignal): Promise<Leftover[]>
  close(): Promise<void>
}
