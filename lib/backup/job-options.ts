import type { Compression, JobOptions, Qcow2Format, RecordedBacking } from '../copy/spec.ts'
import { argumentError } from '../errors.ts'
import {
  COMPRESSION_LEVELS,
  DEFAULT_CLUSTER_SIZE,
  DEFAULT_REQUESTS,
  DEFAULT_RETRIES,
  MIN_CLUSTER_SIZE,
} from '../options.ts'
import { formatSize } from '../units.ts'
import type { CopyOptions, ImageOptions, TableOptions, VerifyingOptions } from './types.ts'

/** QEMU opens no larger L1 table (QCOW_MAX_L1_SIZE), bytes. */
const MAX_L1_SIZE = 32 * 2 ** 20

type MakingOptions = CopyOptions & ImageOptions & TableOptions & VerifyingOptions

/**
 * The options of a copy, each of which is one that may be, with the defaults filled in.
 * @param format the target's
 * @param size virtual size, bytes
 * @param backing the target's backing file
 * @throws BackupError USAGE naming an option that conflicts with the others or the disk
 */
export function jobOptions(
  format: 'qcow2',
  size: number,
  options: MakingOptions,
  backing?: RecordedBacking,
): JobOptions<Qcow2Format>
export function jobOptions(
  format: 'qcow2' | 'raw',
  size: number,
  options: MakingOptions,
  backing?: RecordedBacking,
): JobOptions
export function jobOptions(
  format: 'qcow2' | 'raw',
  size: number,
  options: MakingOptions,
  backing?: RecordedBacking,
): JobOptions {
  const { requests = DEFAULT_REQUESTS, retries = DEFAULT_RETRIES, rateLimit } = options
  const { engine = 'auto', direct = 'auto' } = options
  if (format === 'raw') refuseImageOptions(options)
  return {
    format: format === 'raw' ? { kind: 'raw' } : imageFormat(size, options, backing),
    engine,
    direct,
    requests,
    retries,
    rateLimit,
    hash: Boolean(options.verify || options.manifest),
    signal: options.signal,
    onProgress: options.onProgress,
  }
}

function imageFormat(
  size: number,
  options: ImageOptions & TableOptions,
  backing?: RecordedBacking,
): Qcow2Format {
  return {
    kind: 'qcow2',
    clusterBits: clusterBits(size, options),
    backing: backing && { name: backing.name, format: backing.format, size: backing.size },
    sharedTables: options.sharedTables ?? true,
    compression: compression(options),
  }
}

function clusterBits(size: number, { clusterSize = DEFAULT_CLUSTER_SIZE }: ImageOptions): number {
  const smallest = smallestClusterSize(size)
  if (smallest > clusterSize) {
    throw argumentError(
      'clusterSize',
      `a disk of ${formatSize(size)} needs clusters of at least ${formatSize(smallest)}`,
    )
  }
  return Math.log2(clusterSize)
}

function compression({ compress, compressionLevel }: ImageOptions): Compression | undefined {
  if (compress === undefined) {
    if (compressionLevel !== undefined) {
      throw argumentError('compressionLevel', 'needs a compression method')
    }
    return undefined
  }
  const { min, max, standard } = COMPRESSION_LEVELS[compress]
  const level = compressionLevel ?? standard
  if (level >= min && level <= max) return { type: compress, level }
  throw argumentError(
    'compressionLevel',
    `${level} is not a level of ${compress}: ${min} to ${max}`,
  )
}

/**
 * The smallest cluster size with which a disk's L1 table stays within QEMU's limit, bytes. For
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
