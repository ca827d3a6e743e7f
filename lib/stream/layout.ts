import { argumentError } from '../errors.ts'
import { MAX_REFCOUNT_TABLE_BYTES } from '../format/qcow2/constants.ts'
import { ENTRY, refcountClusters } from '../format/qcow2/new-layout.ts'
import { formatSize } from '../units.ts'
import type { ClusterRun, ClusterRuns } from './cluster-runs.ts'

/** Users of one L2 table: as many as a refcount counts. */
const MAX_USERS = 0xffff

/** An L2 table of an image. */
export interface PlannedTable {
  /** Its place in the L1 table. */
  index: number
  /** Everything in it is zero, so that several may be one. */
  isZero: boolean
}

/**
 * Where the parts of an image that is written from front to back are, in clusters of the file. They lie in
 * this order: header, refcount table, refcount blocks, L1 table, L2 tables that are shared, other L2
 * tables, data in guest order. There is nothing in between.
 */
export interface StreamLayout {
  readonly clusterBits: number
  /** Virtual size, bytes. */
  readonly size: number
  readonly refcountTable: { first: number; clusters: number }
  readonly refcountBlocks: { first: number; clusters: number }
  /** Entries, and where they are. */
  readonly l1: { entries: number; first: number; clusters: number }
  /** L2 tables of nothing but zeroes, of which each is used several times, and by how many. */
  readonly sharedTables: { first: number; users: readonly number[] }
  readonly otherTables: { first: number; clusters: number }
  readonly data: { first: number; clusters: number }
  /** Of the file. */
  readonly clusters: number
}

/**
 * Lays out an image.
 * @param size virtual, bytes
 * @param sharesTables whether ranges of zeroes may share L2 tables
 * @throws BackupError USAGE if QEMU would not open so large a file with such clusters
 */
export function layOut(
  runs: ClusterRuns,
  { clusterBits, size, sharesTables }: { clusterBits: number; size: number; sharesTables: boolean },
): StreamLayout {
  const clusterSize = 2 ** clusterBits
  const inClusters = (bytes: number) => Math.ceil(bytes / clusterSize)
  const entries = Math.ceil(size / (clusterSize ** 2 / ENTRY))
  let dataClusters = 0
  for (const { kind, first, end } of runs) if (kind === 'data') dataClusters += end - first
  // Before its tables are counted, of which there are many then.
  requireRefcounts(dataClusters, clusterSize)
  let zeroTables = 0
  let tables = 0
  for (const { isZero } of tablesOf(runs, clusterSize / ENTRY)) {
    if (isZero && sharesTables) zeroTables++
    else tables++
  }
  const users: number[] = []
  for (let left = zeroTables; left > 0; left -= MAX_USERS) users.push(Math.min(left, MAX_USERS))
  const l1Clusters = inClusters(entries * ENTRY)
  const others = 1 + l1Clusters + users.length + tables + dataClusters
  const { blocks, table } = requireRefcounts(others, clusterSize)

  let next = 1
  const place = (clusters: number) => {
    const first = next
    next += clusters
    return { first, clusters }
  }
  return {
    ...{ clusterBits, size },
    refcountTable: place(table),
    refcountBlocks: place(blocks),
    l1: { entries, ...place(l1Clusters) },
    sharedTables: { first: place(users.length).first, users },
    otherTables: place(tables),
    data: place(dataClusters),
    clusters: next,
  }
}

/**
 * As refcountClusters.
 * @throws BackupError USAGE if QEMU opens no refcount table so large
 */
function requireRefcounts(others: number, clusterSize: number) {
  const clusters = refcountClusters(others, clusterSize)
  const { blocks, table } = clusters
  if (table * clusterSize <= MAX_REFCOUNT_TABLE_BYTES) return clusters
  const bytes = formatSize((others + blocks + table) * clusterSize)
  throw argumentError('clusterSize', `an image of ${bytes} needs larger clusters`)
}

/**
 * The L2 tables that an image has, in order.
 * @param perTable entries of one
 */
export function* tablesOf(runs: Iterable<ClusterRun>, perTable: number): Generator<PlannedTable> {
  let open: PlannedTable | undefined
  for (const { kind, first, end } of runs) {
    for (let cluster = first; cluster < end; ) {
      const index = Math.floor(cluster / perTable)
      const tableEnd = (index + 1) * perTable
      const isWhole = cluster === index * perTable && end >= tableEnd
      if (open?.index !== index) {
        if (open) yield open
        open = { index, isZero: kind === 'zero' && isWhole }
      }
      cluster = Math.min(end, tableEnd)
    }
  }
  if (open) yield open
}
