/**
 * Decodes L2 tables for a reader: strictly, and in runs. Pure: bytes in, runs out.
 *
 * Reserved bits are ignored, as QEMU ignores them when it reads; only a check reports them.
 */

import { hex } from '../../text.ts'
import { malformed } from '../format-error.ts'
import { SUBCLUSTERS } from './constants.ts'
import {
  ALL_SUBCLUSTERS,
  compressedRange,
  hostOffset,
  isCompressed,
  isCopied,
  isZeroFlagged,
  l2EntrySize,
  sameEntriesOnce,
  subclusters,
} from './entries.ts'
import type { Qcow2Header } from './header-fields.ts'

/**
 * A run of guest bytes (`start`, `length`) that one image maps in one way. Host offsets are bytes
 * in the file that holds the data.
 * - `unallocated`: the backing file's, or zero.
 * - `zero`: reads as zero and hides the backing file, with or without a host cluster.
 * - `data`: as it is, from `offset`.
 * - `compressed`: part of one compressed cluster, from its byte `within`. The stream starts at
 *   `offset` and ends before `offset + size`, which is rounded up to a sector.
 */
export type Run =
  | { kind: 'unallocated' | 'zero'; start: number; length: number }
  | { kind: 'data'; start: number; length: number; offset: number }
  | {
      kind: 'compressed'
      start: number
      length: number
      offset: number
      size: number
      within: number
    }

/** Parameters of decoding an entry. */
export type TableLayout = Pick<
  Qcow2Header,
  'version' | 'clusterBits' | 'clusterSize' | 'extendedL2' | 'externalDataFile'
>

/**
 * Decodes the part of an L2 table that maps the guest bytes `from` to `to`. Neighbours that
 * continue each other, in the guest and in the host, become one run.
 * @param table entries of one L2 table, the first of which maps the guest offset `base`
 * @throws FormatError for a malformed entry, naming its guest offset
 */
export function decodeL2(
  table: DataView,
  layout: TableLayout,
  base: number,
  from: number,
  to: number,
): Run[] {
  const { clusterSize } = layout
  const entrySize = l2EntrySize(layout)
  const runs: Run[] = []
  let index = Math.floor((from - base) / clusterSize)
  for (let start = from; start < to; index++) {
    const cluster = base + index * clusterSize
    let end = Math.min(to, cluster + clusterSize)
    const at = index * entrySize
    if (isCompressed(table, at)) {
      if (layout.externalDataFile) {
        throw badEntry(cluster, 'compressed cluster in an image with a data file')
      }
      const range = compressedRange(table, at, layout.clusterBits)
      const within = start - cluster
      runs.push({ kind: 'compressed', start, length: end - start, ...range, within })
    } else {
      const host = hostOffset(table, at)
      // In a data file offset 0 is a valid cluster; only the flag says whether it is used.
      const allocated = host !== 0 || (layout.externalDataFile && isCopied(table, at))
      if (allocated) requireHost(host, cluster, layout)
      if (layout.extendedL2) {
        const { zeros, data } = subclusters(table, at)
        if ((zeros & data) !== 0 || (data !== 0 && !allocated)) {
          throw badEntry(cluster, 'invalid subcluster bitmap')
        }
        appendSubclusters(runs, zeros, data, start, end, cluster, host, clusterSize)
      } else {
        const zero = isZeroFlagged(table, at)
        if (zero && layout.version < 3) {
          throw badEntry(cluster, 'zero cluster in a version 2 image')
        }
        const kind = zero ? 'zero' : allocated ? 'data' : 'unallocated'
        if (kind !== 'data') {
          const alike = sameEntriesOnce(table, at, Math.ceil((to - end) / clusterSize))
          index += alike
          end = Math.min(to, end + alike * clusterSize)
        }
        append(runs, kind, start, end, host + (start - cluster))
      }
    }
    start = end
  }
  return runs
}

function requireHost(host: number, cluster: number, layout: TableLayout): void {
  if (host % layout.clusterSize !== 0) {
    throw badEntry(cluster, `cluster offset ${hex(host)} is unaligned`)
  }
  if (layout.externalDataFile && host !== cluster) {
    throw badEntry(cluster, `lies at another offset, ${hex(host)}, of the data file`)
  }
}

function badEntry(guest: number, why: string) {
  return malformed(`guest offset ${hex(guest)}: ${why}`)
}

/** Appends the subclusters of one cluster that lie between `from` and `to`. */
function appendSubclusters(
  runs: Run[],
  zeros: number,
  data: number,
  from: number,
  to: number,
  cluster: number,
  host: number,
  clusterSize: number,
): void {
  if (data === ALL_SUBCLUSTERS) {
    append(runs, 'data', from, to, host + (from - cluster))
  } else if (zeros === ALL_SUBCLUSTERS) {
    append(runs, 'zero', from, to, 0)
  } else if ((zeros | data) === 0) {
    append(runs, 'unallocated', from, to, 0)
  } else {
    const size = clusterSize / SUBCLUSTERS
    for (let start = from; start < to; ) {
      const n = Math.floor((start - cluster) / size)
      const end = Math.min(to, cluster + (n + 1) * size)
      if (((data >>> n) & 1) !== 0) append(runs, 'data', start, end, host + (start - cluster))
      else append(runs, ((zeros >>> n) & 1) !== 0 ? 'zero' : 'unallocated', start, end, 0)
      start = end
    }
  }
}

function append(
  runs: Run[],
  kind: 'unallocated' | 'zero' | 'data',
  start: number,
  end: number,
  offset: number,
): void {
  const last = runs[runs.length - 1]
  if (
    last !== undefined &&
    last.kind === kind &&
    (last.kind !== 'data' || last.offset + last.length === offset)
  ) {
    last.length += end - start
  } else if (kind === 'data') {
    runs.push({ kind, start, length: end - start, offset })
  } else {
    runs.push({ kind, start, length: end - start })
  }
}
