import type { JobOptions } from '../copy/job.ts'
import { argumentError } from '../errors.ts'
import { SECTOR_SIZE } from '../format/qcow2/constants.ts'
import { formatSize } from '../units.ts'
import type { Backing } from './backing.ts'
import type {
  CopyOptions,
  DiscardOptions,
  ImageOptions,
  TableOptions,
  VerifyingOptions,
} from './types.ts'

const DEFAULT_CLUSTER_SIZE = 65536
const MIN_CLUSTER_SIZE = 512
const MAX_CLUSTER_SIZE = 2 ** 21
/** QEMU opens no larger L1 table (QCOW_MAX_L1_SIZE), bytes. */
const MAX_L1_SIZE = 32 * 2 ** 20

/**
 * Reads are of 1 MiB at most, and of what is scattered no larger than its pieces. Measured with
 * 20,000 scattered pieces of 64 KiB over NBD: 16 take 6.3 s, 64 take 4.5 s, 128 take 4.1 s. With
 * large pieces the buffers bound them, and 4, 8, 16 and 32 take the same time within the noise.
 */
const DEFAULT_REQUESTS = 64
const MAX_REQUESTS = 1024

/** With waits that double, under a second in all. */
const DEFAULT_RETRIES = 3
const MAX_RETRIES = 100

/** The largest granularity that a bitmap may have. */
const MAX_GRANULE = 2 ** 31

/** Levels that each library knows, and the one its authors made the default (zlib: see below). */
const LEVELS = {
  // libdeflate's scale. Level 2 makes smaller streams than zlib's own default, three times as fast.
  zlib: { min: 1, max: 12, standard: 2 },
  zstd: { min: 1, max: 22, standard: 3 },
} as const

/**
 * Checks the options of a copy and fills in the defaults.
 * @param format the target's
 * @param size virtual size, bytes
 * @param backing what the target builds on
 * @throws BackupError USAGE naming the option
 */
export function jobOptions(
  format: 'qcow2' | 'raw',
  size: number,
  options: CopyOptions & ImageOptions & TableOptions & VerifyingOptions,
  backing?: Pick<Backing, 'name' | 'format' | 'size'>,
): JobOptions {
  const { requests = DEFAULT_REQUESTS, retries = DEFAULT_RETRIES, rateLimit } = options
  const { engine = 'auto', direct = 'auto' } = options
  oneOf('to', format, ['raw', 'qcow2'])
  wholeNumber('requests', requests, 1, MAX_REQUESTS)
  wholeNumber('retries', retries, 0, MAX_RETRIES)
  if (rateLimit !== undefined) wholeNumber('rateLimit', rateLimit, 1, Number.MAX_SAFE_INTEGER)
  oneOf('engine', engine, ['auto', 'io_uring', 'threads'])
  oneOf('direct', direct, ['auto', 'on', 'off'])
  if (format === 'raw') refuseImageOptions(options)
  return {
    format,
    ...imageOptions(size, options),
    backing: backing?.name ?? '',
    backingFormat: backing?.format ?? '',
    sharedTables: sharedTables(options),
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

/**
 * What areas that are discarded must be multiples of, bytes; undefined if none are to be.
 * @throws BackupError USAGE
 */
export function discardGranule({ discardAfterCopy: granule }: DiscardOptions): number | undefined {
  if (granule === undefined) return undefined
  if (Number.isInteger(Math.log2(granule)) && granule >= SECTOR_SIZE && granule <= MAX_GRANULE) {
    return granule
  }
  throw argumentError('discardAfterCopy', `${granule} is not a power of two from 512 to 2G`)
}

function sharedTables({ sharedTables = true }: TableOptions): boolean {
  if (typeof sharedTables === 'boolean') return sharedTables
  throw argumentError('sharedTables', `'${sharedTables}' is neither true nor false`)
}

function imageOptions(size: number, options: ImageOptions) {
  const { clusterSize = DEFAULT_CLUSTER_SIZE, compress, compressionLevel } = options
  const clusterBits = Math.log2(clusterSize)
  if (
    !Number.isInteger(clusterBits) ||
    clusterSize < MIN_CLUSTER_SIZE ||
    clusterSize > MAX_CLUSTER_SIZE
  ) {
    throw argumentError('clusterSize', `${clusterSize} is not a power of two from 512 to 2M`)
  }
  const smallest = smallestClusterSize(size)
  if (smallest > clusterSize) {
    throw argumentError(
      'clusterSize',
      `a disk of ${formatSize(size)} needs clusters of at least ${formatSize(smallest)}`,
    )
  }
  if (compress === undefined) {
    if (compressionLevel !== undefined) {
      throw argumentError('compressionLevel', 'only goes with --compress')
    }
    return { clusterBits, compress: '' as const, level: 0 }
  }
  oneOf('compress', compress, ['zlib', 'zstd'])
  const { min, max, standard } = LEVELS[compress]
  const level = compressionLevel ?? standard
  wholeNumber('compressionLevel', level, min, max)
  return { clusterBits, compress, level }
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
  if (options.clusterSize !== undefined) throw argumentError('clusterSize', 'only goes with qcow2')
  if (options.compress !== undefined) throw argumentError('compress', 'only goes with qcow2')
  if (options.compressionLevel !== undefined) {
    throw argumentError('compressionLevel', 'only goes with qcow2')
  }
}

function wholeNumber(option: string, value: number, min: number, max: number): void {
  if (Number.isSafeInteger(value) && value >= min && value <= max) return
  const range = max === Number.MAX_SAFE_INTEGER ? `of at least ${min}` : `from ${min} to ${max}`
  throw argumentError(option, `${value} is not a whole number ${range}`)
}

function oneOf(option: string, value: string, allowed: readonly string[]): void {
  if (!allowed.includes(value)) {
    throw argumentError(option, `'${value}' is not one of ${allowed.join(', ')}`)
  }
}
