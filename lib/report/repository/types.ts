import type { RetentionPolicy } from '../../repository/retention.ts'
import type { Verified } from '../../repository/verified.ts'
import type { Finding } from '../finding.ts'

/** Something that a report of a repository has to say. */
export interface RepositoryNote extends Finding {
  /** Findings of one kind are about the same thing, of several machines. */
  kind:
    | 'record'
    | 'journal'
    | 'missing'
    | 'parent'
    | 'different'
    | 'orphan'
    | 'leftover'
    | 'overdue'
    | 'chain'
    | 'unverified'
    | 'clock'
    | 'prune'
  machine: string
}

/** A disk of a point. */
export interface ReportedDisk {
  name: string
  kind: 'full' | 'incremental'
  /** Bytes. */
  virtualSize: number
  /** Blocks of its image, bytes. */
  storedBytes: number
}

/** A point in time. */
export interface ReportedPoint {
  point: string
  /** ISO 8601. */
  time: string
  /** `mixed`: not the same for all disks. */
  kind: 'full' | 'incremental' | 'mixed'
  disks: ReportedDisk[]
  /** Blocks of its images, bytes. */
  storedBytes: number
  /** Images of the longest chain of its disks; missing if one has a gap. */
  depth?: number
  /** All its images and what they build on; missing if that was never done. */
  verified?: Verified
  /** What the policy says. */
  retention?: { keep: boolean; reasons: string[] }
}

/** What the next prune would do to a machine. Nothing of it is done. */
export interface ReportedPrune {
  /** Images that are made again, as removed points become part of them. */
  remade: number
  /** Bytes that have to be free for a while, at most. */
  neededBytes: number
  /** Bytes that are free afterwards and were not before, at most. */
  freedBytes: number
  /** Why it could not be done; the numbers are 0 then. */
  failure?: string
}

/** A machine. */
export interface ReportedMachine {
  machine: string
  /** Oldest first. */
  points: ReportedPoint[]
  /** Blocks of all images that records name, bytes. */
  storedBytes: number
  /** Time between two backups lately, the median, milliseconds; missing with less than three points. */
  usualInterval?: number
  /** By the policy, if one was given. */
  prune?: ReportedPrune
  /** The gravest first. */
  findings: RepositoryNote[]
}

/** What there is to know of a repository without reading content. */
export interface RepositoryReport {
  /** Path. */
  repository: string
  /** When it was looked at, ISO 8601. */
  time: string
  /** Bytes. */
  storedBytes: number
  /** What is to be said of all machines, of many alike in one sentence; the gravest first. */
  findings: Finding[]
  /** By name. */
  machines: ReportedMachine[]
  /** By which `retention` of the points is judged, if one was given. */
  policy?: RetentionPolicy
}
