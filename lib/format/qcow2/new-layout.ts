/** Sizes of the metadata of images that we make: L2 entries are standard ones, refcounts have 16 bits. */

/** Bytes of an entry of the L1, an L2 and the refcount table. */
export const ENTRY = 8
/** Bytes of a refcount. */
export const REFCOUNT = 2

/**
 * How many clusters the refcounts of an image take, which count themselves, too.
 * @param others all its other clusters
 * @param clusterSize bytes
 */
export function refcountClusters(
  others: number,
  clusterSize: number,
): { blocks: number; table: number } {
  let blocks = 0
  let table = 0
  for (let all = -1; all !== others + blocks + table; ) {
    all = others + blocks + table
    blocks = Math.ceil((all * REFCOUNT) / clusterSize)
    table = Math.ceil((blocks * ENTRY) / clusterSize)
  }
  return { blocks, table }
}
