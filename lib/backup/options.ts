import type { JobOptions } from '../copy/job.ts'
import { argumentError } from '../errors.ts'
import {
  COMPRESSION_LEVELS,
  DEFAULT_CLUSTER_SIZE,
  DEFAULT_REQUESTS,
  DEFAULT_RETRIES,
  MIN_CLUSTER_SIZE,
} from '../options.ts'
import { formatSize } from '../units.ts'
import type { Backing } from './backing.ts'
import type { CopyOptions, ImageOptions, TableOptions, VerifyingOptions } from './types.ts'

/** QEMU opens no larger L1 table (QCOW_MAX_L1_SIZE), bytes. */
const MAX_L1_SIZE = 32 * 2 ** 20

/**
 * The options of a copy, each of which is one that may be, with the defaults filled in.
 * @param format the target's
 * @param size virtual size, bytes
 * @param backing what the target builds on
 * @throws BackupError USAGE naming an option that does not go with the others or the disk
 */
export function jobOptions(
  format: 'qcow2' | 'raw',
  size: number,
  options: CopyOptions & ImageOptions & TableOptions & VerifyingOptions,
  backing?: Pick<Backing, 'name' | 'format' | 'size'>,
): JobOptions {
  const { requests = DEFAULT_REQUESTS, retries = DEFAULT_RETRIES, rateLimit } = options
  const { engine = 'auto', direct = 'auto' } = options
  if (format === 'raw') refuseImageOptions(options)
  return {
    format,
    ...imageOptions(size, options),
    backing: backing?.name ?? '',
    backingFormat: backing?.format ?? '',
    sharedTables: options.sharedTables ?? true,
    backingSize: backing?.size,
    engine,
    direct,
    requests,
    retries,
    rateLimit: rateLimit ?? 0,
    hash: Boolean(options.verify || options.manifest),
    signal: options.signal,
    onProgress: options.onProgress,
  }
}

function imageOptions(size: number, options: ImageOptions) {
  const { clusterSize = DEFAULT_CLUSTER_SIZE, compress, compressionLevel } = options
  const smallest = smallestClusterSize(size)
  if (smallest > clusterSize) {
    throw argumentError(
      'clusterSize',
      `a disk of ${formatSize(size)} needs clusters of at least ${formatSize(smallest)}`,
    )
  }
  const clusterBits = Math.log2(clusterSize)
  if (compress === undefined) {
    if (compressionLevel !== undefined) {
      throw argumentError('compressionLevel', 'needs a compression method')
    }
    return { clusterBits, compress: '' as const, level: 0 }
  }
  const { min, max, standard } = COMPRESSION_LEVELS[compress]
  const level = compressionLevel ?? standard
  if (level >= min && level <= max) return { clusterBits, compress, level }
  throw argumentError(
    'compressionLevel',
    `${level} is not a level of ${compress}: ${min} to ${max}`,
  )
}

/**
 * The smallest cluster size with which a disk's L1 table stays within what QEMU opens, bytes. For
 * every size that is a safe integer there is one.
 */
function smallestClusterSize(size: number): number {
  let clusterSize = MIN_CLUSTER_SIZE
  // An L2 table of 8-byte entries maps clusterSize²/8 bytes and takes 8 bytes of L1.
  while (Math.ceil(size / (clusterSize ** 2 / 8)) * 8 > MAX_L1_SIZE) clusterSize *= 2
  return clusterSize
}

function refuseImageOptions(options: ImageOptions): void {
  for (const option of ['clusterSize', 'compress', 'compressionLevel'] as const) {
    if (options[option] !== undefined) throw argumentError(option, 'needs a qcow2 target')
  }
}
