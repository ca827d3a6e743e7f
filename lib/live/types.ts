import type {
  CopyOptions,
  CopyResult,
  ImageOptions,
  OpenOptions,
  VerifyingOptions,
} from '../backup/types.ts'
import type { CbwErrorPolicy, FreezeOptions, MachineOptions } from '../machine/machine.ts'

/** Options of `backupMachine`; sizes in bytes. */
export interface BackupMachineOptions
  extends MachineOptions,
    Omit<CopyOptions, 'force'>,
    ImageOptions,
    Pick<OpenOptions, 'connections' | 'timeoutMs'>,
    Pick<VerifyingOptions, 'verify'>,
    Pick<
      FreezeOptions,
      'quiesce' | 'scratch' | 'cbwTimeout' | 'minClusterSize' | 'recipe' | 'discard'
    > {
  /** Back up every disk in full. Default: incrementally where that is possible. */
  full?: boolean
  /** Fail if a disk cannot be backed up incrementally. */
  incremental?: boolean
  /** Only these disks, by their names in the machine. Default: all. */
  disks?: readonly string[]
  /** All but these. */
  exclude?: readonly string[]
  /** Name of the point, and of the bitmaps that begin there. Default: the time, `20261129T115200Z`. */
  checkpoint?: string
  /** Begin no bitmap: the machine stays as it is, and the next backup goes on from the last one's bitmap. */
  noCheckpoint?: boolean
  /**
   * Where a bitmap was lost: compare the disk with the last backup, and copy what differs, over it.
   * Default: such a disk is backed up in full.
   */
  rebuild?: boolean
  /** What becomes of the bitmaps of earlier backups. Default: removed. */
  old?: 'keep' | 'remove'
  /** What QEMU does when it cannot keep old content. Default: break-snapshot where it has that. */
  onCbwError?: CbwErrorPolicy
  /** Called right before the instant; the guest's programs can be told then. */
  beforeFreeze?: () => void | Promise<void>
  /** Called right after the instant. */
  afterFreeze?: () => void | Promise<void>
  /** Called for each disk before it is copied, all at once. */
  onDisk?: (disk: DiskToCopy) => void | Promise<void>
}

/** A disk that is about to be copied. */
export interface DiskToCopy {
  name: string
  kind: 'full' | 'incremental'
  /** Bytes. */
  virtualSize: number
  /** Path or NBD URI by which it is read as it was at the instant. */
  source: string
  /** Path of the image that is made. */
  target: string
}

/** A disk in the result of `backupMachine`; sizes in bytes. */
export interface DiskBackup extends Omit<CopyResult, 'notes' | 'manifest'> {
  name: string
  /** File name of the image, without a directory. */
  image: string
  kind: 'full' | 'incremental'
  /** Why it is full, or how an incremental one was possible without a bitmap. */
  reason?: string
  /** The point whose image is this one's backing file. */
  parent?: string
  /** The bitmap that began at this point; missing where the disk has none. */
  bitmap?: { name: string; granularity: number }
  /** Of the temporary image that kept the point in time: the most that was seen, and at the end. */
  scratch?: { peakBytes: number; finalBytes: number }
}

/** Result of `backupMachine`. */
export interface BackupMachineResult {
  machine: string
  point: string
  /** The instant, ISO 8601. */
  time: string
  /** The latest point that an image of this one builds on. */
  parent?: string
  /** Path of the point's record. */
  record: string
  disks: DiskBackup[]
  elapsedSeconds: number
  /** Caveats, and what was left by runs before. */
  notes: string[]
}
