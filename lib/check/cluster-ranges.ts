/**
 * A set of cluster numbers, kept as ranges: an image may claim any number of clusters, but
 * takes only as much memory as the claims themselves.
 */
export class ClusterRanges {
  readonly #ranges: { first: number; last: number }[] = []
  /** They are in order and do not touch. */
  #tidy = true

  /** Adds the clusters of which a range of bytes has any. */
  addBytes(offset: number, bytes: number, clusterSize: number): void {
    if (bytes <= 0 || !Number.isSafeInteger(offset)) return
    const first = Math.floor(offset / clusterSize)
    const last = Math.floor((offset + bytes - 1) / clusterSize)
    const before = this.#ranges.at(-1)
    if (before && first >= before.first && first <= before.last + 1) {
      before.last = Math.max(before.last, last)
      return
    }
    if (before && first < before.first) this.#tidy = false
    this.#ranges.push({ first, last })
  }

  has(cluster: number): boolean {
    return this.endOf(cluster) !== cluster
  }

  /** The first cluster after the range that a cluster is in; of one that is in none, the cluster itself. */
  endOf(cluster: number): number {
    if (!this.#tidy) this.#tidyUp()
    let low = 0
    let high = this.#ranges.length
    // The first range that ends at or after the cluster.
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#ranges[middle].last < cluster) low = middle + 1
      else high = middle
    }
    const isIn = low < this.#ranges.length && this.#ranges[low].first <= cluster
    return isIn ? this.#ranges[low].last + 1 : cluster
  }

  #tidyUp(): void {
    const sorted = this.#ranges.splice(0).sort((a, b) => a.first - b.first)
    for (const range of sorted) {
      const before = this.#ranges.at(-1)
      if (before && range.first <= before.last + 1) before.last = Math.max(before.last, range.last)
      else this.#ranges.push(range)
    }
    this.#tidy = true
  }
}
