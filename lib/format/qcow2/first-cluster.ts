import { type ImageFile, readAt } from '../read.ts'
import { FIELD, MAX_CLUSTER_BITS, V2_HEADER_LENGTH } from './constants.ts'

/**
 * The first cluster of a qcow2 image, which holds the header and all that belongs to it, as far as
 * the file has it; of another file, its first bytes. No more is read: pages cached of a
 * hole counts as data.
 * @throws BackupError IO
 */
export async function readFirstCluster(file: ImageFile): Promise<Buffer> {
  const start = await readAt(file, 0, Math.min(file.size, V2_HEADER_LENGTH))
  return await readAt(file, 0, Math.min(file.size, firstClusterSize(start)))
}

/** Bytes of the first cluster; the maximum, if the cluster size is not known. */
function firstClusterSize(start: Buffer): number {
  const bits =
    start.length < V2_HEADER_LENGTH ? MAX_CLUSTER_BITS : start.readUInt32BE(FIELD.clusterBits)
  return 2 ** Math.min(bits, MAX_CLUSTER_BITS)
}
