import type { BitmapHealth } from '../../source/bitmaps/health.ts'
import type { Finding } from '../finding.ts'

/** Bytes of the disk by what is known of them. The rest is a hole. */
export interface Amounts {
  /** Stored as they are. */
  data: number
  compressed: number
  /** Read as zero because an image says so. */
  zero: number
  /** Stored, and never read: an image above has them too. */
  hidden: number
  /** Of which a table cannot be read. */
  unknown: number
}

/** The same for each piece of the disk, in order: lists of equal length. */
export type DiskMap = { [Kind in keyof Amounts]: number[] }

/** What one image of a chain has. */
export interface ReportedImage extends Amounts {
  image: string
  format: 'raw' | 'qcow2'
  /** Bytes. */
  virtualSize: number
  /** Of the file, and of the blocks that the file system allocated to it. */
  fileSize: number
  allocatedBytes: number
  /** Of a qcow2 image, bytes. */
  clusterSize?: number
  /** Another process has it open for writing. */
  live: boolean
  /** Of a qcow2 image that could be checked. */
  check?: ReportedCheck
  map: DiskMap
}

/** Result of a check. */
export interface ReportedCheck {
  corruptions: number
  /** Clusters. */
  leaks: number
  checkErrors: number
  /** Percent of the clusters stored as they are that do not follow the one before; missing if it has none. */
  fragmentation?: number
}

/** A bitmap in one image. */
export interface ReportedBitmap {
  image: string
  name: string
  /** Bytes per bit. */
  granularity: number
  recording: boolean
  inconsistent: boolean
  /** Guest bytes in the granules that it has as dirty; missing if they were not read. */
  dirtyBytes?: number
  /** The same for each piece of the disk. */
  map?: number[]
}

/** An internal snapshot. */
export interface ReportedSnapshot {
  image: string
  id: string
  name: string
  /** ISO 8601. */
  time: string
  /** Bytes. */
  diskSize: number
  vmStateSize: number
}

/** What there is to know of an image and of all that it builds on, without reading content. */
export interface ImageReport extends Amounts {
  image: string
  /** When it was looked at, ISO 8601. */
  time: string
  /** Bytes. */
  virtualSize: number
  /** The gravest first. */
  findings: Finding[]
  /** Top first. */
  images: ReportedImage[]
  bitmaps: ReportedBitmap[]
  /** By name. */
  bitmapHealth: BitmapHealth[]
  snapshots: ReportedSnapshot[]
  /** Bytes of a piece of the disk in each map; the last may be shorter. */
  pieceSize: number
  /** What the guest sees. */
  map: DiskMap
}
