import { COPIED, ZERO } from '../format/qcow2/entries.ts'
import { ENTRY, REFCOUNT } from '../format/qcow2/new-layout.ts'
import type { ClusterRuns } from './cluster-runs.ts'
import { type StreamLayout, tablesOf } from './layout.ts'

/**
 * The metadata of an image behind its header, in the order of the file: refcount table, refcount blocks,
 * L1 table, L2 tables.
 * @returns whole clusters, one at a time
 */
export function* encodeMetadata(layout: StreamLayout, runs: ClusterRuns): Generator<Buffer> {
  yield* refcountTable(layout)
  yield* refcountBlocks(layout)
  yield* l1Table(layout, runs)
  yield* l2Tables(layout, runs)
}

function* refcountTable({
  clusterBits,
  refcountTable,
  refcountBlocks,
}: StreamLayout): Generator<Buffer> {
  const offsets = (function* () {
    for (let i = 0; i < refcountBlocks.clusters; i++) {
      yield BigInt(refcountBlocks.first + i) << BigInt(clusterBits)
    }
  })()
  yield* clustersOf(offsets, 2 ** clusterBits, refcountTable.clusters)
}

/** All are 1 but those of shared tables. */
function* refcountBlocks(layout: StreamLayout): Generator<Buffer> {
  const { clusterBits, clusters, sharedTables } = layout
  const perBlock = 2 ** clusterBits / REFCOUNT
  for (let first = 0; first < clusters; first += perBlock) {
    const block = Buffer.alloc(2 ** clusterBits)
    block.fill(Buffer.from([0, 1]), 0, Math.min(perBlock, clusters - first) * REFCOUNT)
    for (const [i, users] of sharedTables.users.entries()) {
      const at = sharedTables.first + i - first
      if (at >= 0 && at < perBlock) block.writeUInt16BE(users, at * REFCOUNT)
    }
    yield block
  }
}

function* l1Table(layout: StreamLayout, runs: ClusterRuns): Generator<Buffer> {
  const { clusterBits, l1, sharedTables, otherTables } = layout
  const perTable = 2 ** clusterBits / ENTRY
  const entries = (function* () {
    let next = otherTables.first
    let shared = 0
    let used = 0
    let index = 0
    for (const table of tablesOf(runs, perTable)) {
      for (; index < table.index; index++) yield 0n
      index++
      if (!table.isZero || sharedTables.users.length === 0) {
        yield (BigInt(next++) << BigInt(clusterBits)) | COPIED
        continue
      }
      if (used === sharedTables.users[shared]) {
        shared++
        used = 0
      }
      used++
      // Only the one user of a cluster may have the flag.
      const flag = sharedTables.users[shared] === 1 ? COPIED : 0n
      yield (BigInt(sharedTables.first + shared) << BigInt(clusterBits)) | flag
    }
  })()
  yield* clustersOf(entries, 2 ** clusterBits, l1.clusters)
}

function* l2Tables(layout: StreamLayout, runs: ClusterRuns): Generator<Buffer> {
  const { clusterBits, sharedTables, data } = layout
  const clusterSize = 2 ** clusterBits
  const perTable = clusterSize / ENTRY
  const zeroes = () => {
    const table = Buffer.alloc(clusterSize)
    for (let i = 0; i < perTable; i++) table.writeBigUInt64BE(ZERO, i * ENTRY)
    return table
  }
  for (const _ of sharedTables.users) yield zeroes()
  let next = data.first
  let index = -1
  let table: Buffer | undefined
  for (const { kind, first, end } of runs) {
    for (let cluster = first; cluster < end; ) {
      const at = Math.floor(cluster / perTable)
      const tableEnd = Math.min(end, (at + 1) * perTable)
      if (at !== index) {
        if (table) yield table
        index = at
        table = undefined
      }
      const isWhole = cluster === at * perTable && tableEnd === (at + 1) * perTable
      if (kind === 'zero' && isWhole && sharedTables.users.length > 0) {
        cluster = tableEnd
        continue
      }
      table ??= Buffer.alloc(clusterSize)
      for (; cluster < tableEnd; cluster++) {
        const entry = kind === 'zero' ? ZERO : (BigInt(next++) << BigInt(clusterBits)) | COPIED
        table.writeBigUInt64BE(entry, (cluster % perTable) * ENTRY)
      }
    }
  }
  if (table) yield table
}

/** Entries in whole clusters; what is missing is 0. */
function* clustersOf(
  entries: Iterable<bigint>,
  clusterSize: number,
  clusters: number,
): Generator<Buffer> {
  const from = entries[Symbol.iterator]()
  for (let i = 0; i < clusters; i++) {
    const cluster = Buffer.alloc(clusterSize)
    for (let at = 0; at < clusterSize; at += ENTRY) {
      const { done, value } = from.next()
      if (done) break
      cluster.writeBigUInt64BE(value, at)
    }
    yield cluster
  }
}
