import { type StoredRefcounts, Unreadable } from '../check/stored-refcounts.ts'
import { BackupError } from '../errors.ts'
import { encodeRefcount } from '../format/qcow2/refcounts.ts'
import type { Write } from '../image/steps.ts'
import { Turns } from '../turns.ts'

/** References that clusters lose: how many, by the number of the cluster. */
export type Lost = Map<number, number>

/**
 * Refcount blocks after dropping these references.
 * @param path for messages
 * @returns the writes, and the clusters that nothing refers to any more, in order
 * @throws BackupError BAD_IMAGE if a cluster has fewer references than it is to lose; IO
 */
export async function release(
  stored: StoredRefcounts,
  lost: Lost,
  path: string,
): Promise<{ blocks: Write[]; free: number[] }> {
  const blocks: Write[] = []
  const free: number[] = []
  let last: { index: number; write: Write } | undefined
  // Block by block, so that each is changed while it is in memory, and written once.
  const turns = new Turns(path)
  for (const cluster of Float64Array.from(lost.keys()).sort()) {
    const pause = turns.step()
    if (pause) await pause
    const index = Math.floor(cluster / stored.perBlock)
    if (stored.get(cluster) === undefined) await stored.load(cluster)
    const refcount = stored.get(cluster)
    const less = lost.get(cluster) as number
    // One that a number does not hold keeps every bit.
    const left = typeof refcount === 'bigint' ? refcount - BigInt(less) : Number(refcount) - less
    if (refcount instanceof Unreadable || refcount === undefined || !(left >= 0)) {
      const why = `cluster ${cluster} is referenced more often than its refcount says`
      throw new BackupError('BAD_IMAGE', path, why)
    }
    if (last?.index !== index) {
      last = { index, write: stored.set(cluster, left) }
      blocks.push(last.write)
    } else {
      encodeRefcount(last.write.bytes, cluster % stored.perBlock, stored.bits, left)
    }
    if (left === 0) free.push(cluster)
  }
  return { blocks, free }
}

/** Counts a lost reference to each cluster of which a range has a byte. */
export function lose(lost: Lost, offset: number, bytes: number, clusterSize: number): void {
  const last = Math.floor((offset + bytes - 1) / clusterSize)
  for (let cluster = Math.floor(offset / clusterSize); cluster <= last; cluster++) {
    lost.set(cluster, (lost.get(cluster) ?? 0) + 1)
  }
}
