import type { ContentHash } from '../backup/types.ts'

/** A disk of a point in time, in a record. */
export interface DiskRecord {
  name: string
  /** File name of the image, without a directory. */
  image: string
  kind: 'full' | 'incremental'
  /** Why it is full where an incremental one was asked for or possible before. */
  reason?: string
  /** Bytes. */
  virtualSize: number
  /** The point whose image is this one's backing file. */
  parent?: string
  /** The bitmap that began at this point; missing where the disk has none. */
  bitmap?: { name: string; granularity: number }
  /** Guest bytes. */
  dataBytes: number
  zeroBytes: number
  unchangedBytes: number
  /** Of the image, bytes. */
  fileSize: number
  content: ContentHash
}

/** A point in time of a machine, as `REPO/MACHINE/POINT.json` records it. */
export interface PointRecord {
  /** Of this format. */
  version: 1
  machine: string
  point: string
  /** Random, of this point: a parent is recognised by it, not by its name. */
  id: string
  /** Id and name of the point before, if a disk's image has its backing file there. */
  parent?: { point: string; id: string }
  /** The instant, ISO 8601. */
  time: string
  disks: DiskRecord[]
  /** Names and versions of the programs that made it. */
  versions: Record<string, string>
}
