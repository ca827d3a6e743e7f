import type { ReferenceCounts } from './reference-counts.ts'
import type { Report } from './report.ts'
import type { Block, StoredRefcounts } from './stored-refcounts.ts'
import { Unreadable } from './stored-refcounts.ts'

/** Scope of a repair. */
export interface Fix {
  leaks: boolean
  errors: boolean
}

export const NOTHING: Fix = { leaks: false, errors: false }

/** Clusters of a block between two turns of the event loop: a block may have millions. */
const PART = 65536

/** Result of the comparison for the whole image. */
export interface RefcountComparison {
  /** A cluster that is referenced has a refcount of 0: its block may be needed by itself. */
  rebuild: boolean
  /** The last cluster in use. */
  highest: number
}

/**
 * Compares the refcounts of an image with the references that were counted.
 * @param fix scope of the repair, in the blocks in memory
 * @param write receives each block that was changed, when all its changes are made
 */
export async function compareRefcounts(
  stored: StoredRefcounts,
  counts: ReferenceCounts,
  report: Report,
  fix: Fix = NOTHING,
  write: (block: Block) => Promise<void> = async () => {},
): Promise<RefcountComparison> {
  const comparison = new Comparison(stored, counts, report, fix)
  const { perBlock } = stored
  for (let cluster = 0; cluster < counts.clusters; ) {
    const index = Math.floor(cluster / perBlock)
    const next = Math.min((index + 1) * perBlock, counts.clusters)
    if (stored.hasBlock(index)) {
      if (stored.get(cluster) === undefined) await stored.load(cluster)
      for (let from = cluster; from < next; from += PART) {
        const pause = report.step()
        if (pause) await pause
        comparison.block(from, Math.min(from + PART, next))
      }
      if (comparison.changed) await write(comparison.changed)
      comparison.changed = undefined
      cluster = next
    } else {
      // No block is stored: only referenced clusters matter.
      const from = counts.nextReferenced(cluster)
      const to = Math.min(next, counts.clusters)
      const pause = report.step()
      if (pause) await pause
      if (from < to) comparison.block(from, to)
      cluster = Math.max(to, Math.min(from, stored.nextBlock(index) * perBlock))
    }
  }
  return comparison
}

class Comparison implements RefcountComparison {
  rebuild = false
  highest = 0
  changed: Block | undefined
  readonly #stored: StoredRefcounts
  readonly #counts: ReferenceCounts
  readonly #report: Report
  readonly #fix: Fix

  constructor(stored: StoredRefcounts, counts: ReferenceCounts, report: Report, fix: Fix) {
    this.#stored = stored
    this.#counts = counts
    this.#report = report
    this.#fix = fix
  }

  /** Clusters `from` to `to`, all of one block, which is in memory. */
  block(from: number, to: number): void {
    for (let cluster = from; cluster < to; ) {
      const alike = this.#alike(cluster, to)
      cluster += alike
      if (alike === 0) this.#one(cluster++)
    }
  }

  /** How many clusters from `from` on are as they should be; may be more. */
  #alike(from: number, to: number): number {
    const references = this.#counts.part(from, to)
    if (!references) return 0
    const alike = this.#stored.alike(from, references)
    let used = alike
    while (used > 0 && references[used - 1] === 0) used--
    if (used > 0) this.highest = from + used - 1
    return alike
  }

  #one(cluster: number): void {
    const refcount = this.#stored.get(cluster)!
    if (refcount instanceof Unreadable) {
      this.#report.say(`Can't get refcount for cluster ${cluster}`, refcount.error)
      this.#report.result.checkErrors++
      return
    }
    const references = this.#counts.get(cluster)
    if (refcount !== 0 || references !== 0) this.highest = cluster
    if (refcount !== references) this.#differs(cluster, refcount, references)
  }

  #differs(cluster: number, refcount: number | bigint, references: number): void {
    const { result } = this.#report
    const leaked = refcount > references
    if (refcount === 0) this.rebuild = true
    const mend = refcount !== 0 && (leaked ? this.#fix.leaks : this.#fix.errors)
    const what = mend ? 'Repairing' : leaked ? 'Leaked' : 'ERROR'
    this.#report.say(`${what} cluster ${cluster} refcount=${refcount} reference=${references}`)
    if (mend) {
      this.changed = this.#stored.set(cluster, references)
      if (leaked) result.leaksFixed++
      else result.corruptionsFixed++
    } else if (leaked) result.leaks++
    else result.corruptions++
  }
}
