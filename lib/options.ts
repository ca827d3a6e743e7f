/** The options of the library's functions, in groups: their keys, types, ranges, and help. */
import type { Progress } from './progress.ts'
import {
  BOOLEAN,
  callback,
  choice,
  list,
  type OptionsOf,
  option,
  PATH,
  powerOfTwo,
  SIGNAL,
  TEXT,
  whole,
} from './schema.ts'

export const FORMAT = choice('raw', 'qcow2')

/** The longest that a server may be silent: a day, milliseconds. */
const MAX_TIMEOUT_MS = 86_400_000

/** For whatever can take long. */
export const CONTROL_OPTIONS = {
  /**
   * Ends the call, which rejects with BackupError ABORTED, whose cause is the signal's reason. What
   * it was to make is not made.
   */
  signal: option(SIGNAL, 'ends the call'),
  /** Called at most ten times a second, and once at the end. */
  onProgress: option(callback<(progress: Progress) => void>(), 'told how far the call is'),
} as const

/** Where files that images name may be, and what those are. */
export const CHAIN_OPTIONS = {
  /** Directories below which files named inside images may be opened, besides their own. */
  allowPaths: option(
    list(PATH),
    'let images name files below this directory too; repeatable, / allows all',
  ),
  /** The format of a backing file whose image does not record one. */
  backingFormat: option(FORMAT, 'the format of a backing file whose image does not record it'),
} as const

/** How an NBD server is asked. */
export const NBD_OPTIONS = {
  /** Connections to an NBD server, 1 to 16. Default: 4 if it allows several, else 1. */
  connections: option(whole(1, 16), 'connections to an NBD server', {
    fallback: '4 if it allows several',
  }),
  /** How long an NBD server may be silent, milliseconds, up to a day. Default 30 000. */
  timeoutMs: option(whole(1, MAX_TIMEOUT_MS, 'seconds'), 'how long an NBD server may be silent', {
    fallback: '30',
  }),
} as const

/** Others may be writing to the image. */
export const SHARE_OPTIONS = {
  /**
   * Read images that another process may be writing to, whatever comes of it. Default: they are
   * refused.
   */
  forceShare: option(BOOLEAN, 'also read images that another process may be writing to', {
    letter: 'U',
  }),
} as const

/** How a disk is opened. */
export const OPEN_OPTIONS = {
  /** The image format. Default: recognised by its magic. */
  format: option(FORMAT, 'the format', { letter: 'f', fallback: 'by its magic' }),
  ...CHAIN_OPTIONS,
  ...SHARE_OPTIONS,
  ...NBD_OPTIONS,
  /**
   * The dirty bitmap that tells what changed: of an image, a persistent one of its own; of an NBD
   * server, one that it exports as `qemu:dirty-bitmap:NAME`.
   */
  bitmap: option(TEXT, 'the dirty bitmap that tells what changed'),
} as const

export const FORCE_OPTIONS = {
  /** Replace a target that exists. Its old content stays until the new one is complete. */
  force: option(BOOLEAN, 'replace a target that exists, once the new one is complete'),
} as const

const RATE = whole(1, Number.MAX_SAFE_INTEGER, 'size')

export const RATE_OPTIONS = {
  /** Most bytes read per second. Default: no limit. */
  rateLimit: option(RATE, 'most bytes read per second', { fallback: 'no limit' }),
} as const

/** How any copy is run. */
export const COPY_OPTIONS = {
  ...FORCE_OPTIONS,
  /** Most read and write requests in flight, 1 to 1024. Default 64. */
  requests: option(whole(1, 1024), 'most reads and writes in flight', { fallback: '64' }),
  /** Times that an area which cannot be read is read again, 0 to 100. Default 3. */
  retries: option(whole(0, 100), 'times that what cannot be read is read again', { fallback: '3' }),
  ...RATE_OPTIONS,
  /** How the kernel is asked. Default `auto`: io_uring, or threads where it is refused. */
  engine: option(choice('auto', 'io_uring', 'threads'), 'how the kernel is asked', {
    fallback: 'auto',
    env: 'QCOW2_BACKUP_ENGINE',
  }),
  /** O_DIRECT. Default `auto`: where file system and cluster size allow it; `on` fails otherwise. */
  direct: option(choice('auto', 'on', 'off'), 'bypass the page cache, O_DIRECT', {
    fallback: 'auto',
    env: 'QCOW2_BACKUP_DIRECT',
  }),
  ...CONTROL_OPTIONS,
} as const

export const CLUSTER_SIZE_OPTIONS = {
  /** Bytes, a power of two from 512 to 2 MiB. Default 64 KiB. */
  clusterSize: option(powerOfTwo(512, 2 ** 21, 'from 512 to 2M'), 'the size of a cluster', {
    fallback: '64K',
  }),
} as const

/** How the clusters of a new qcow2 image are made. */
export const IMAGE_OPTIONS = {
  ...CLUSTER_SIZE_OPTIONS,
  /** Compress data clusters. Default: no. */
  compress: option(choice('zlib', 'zstd'), 'compress the data clusters'),
  /** zlib 1 to 12 (libdeflate's scale), zstd 1 to 22. */
  compressionLevel: option(whole(1, 22), 'zlib: 1 to 12, zstd: 1 to 22'),
} as const

/** How the tables of an image over a backing file are made. */
export const TABLE_OPTIONS = {
  /**
   * Ranges of the disk in which everything became zero share one L2 table, which makes a wiped
   * terabyte a few clusters. Default true. Images that a virtual machine is to write to must have
   * none: QEMU leaves the refcount of such a table in a state that `qemu-img check` calls corrupt.
   * Without it each such range takes a table of its own.
   */
  sharedTables: option(BOOLEAN, 'let ranges of zeroes share one L2 table'),
} as const

export const DISCARD_OPTIONS = {
  /**
   * Once a second, what is durable in the target by then is discarded at the source (NBD TRIM), in
   * multiples of this many bytes: what keeps the point in time, such as QEMU's fleecing image,
   * shrinks as the copy goes on. A copy that fails later cannot be taken again from that source.
   * QEMU takes 64 KiB or the cluster size of the fleecing image, whichever is larger.
   */
  discardAfterCopy: option(
    powerOfTwo(512, 2 ** 31, 'from 512 to 2G'),
    'discard at the NBD server what is safely stored, in multiples of this size (QEMU: 64K)',
  ),
} as const

/** How it is made sure that a new image holds what was read. */
export const VERIFYING_OPTIONS = {
  /**
   * Before the image gets its name, check it, read back what was written, and compare that with a
   * hash of the source's blocks as they were read. Takes as long as reading the image.
   */
  verify: option(BOOLEAN, 'check the new image, and compare what it holds with what was read'),
  /** Write what `verifyManifests` needs into a file beside the image, `IMAGE.manifest.json`. */
  manifest: option(BOOLEAN, 'keep the hash of the content beside the image, for verify'),
} as const

/** Bytes that one bit of a bitmap stands for. */
export const GRANULARITY_OPTIONS = {
  granularity: option(powerOfTwo(512, 2 ** 31, 'from 512 to 2G'), 'bytes that one bit stands for'),
} as const

export type ControlOptions = OptionsOf<typeof CONTROL_OPTIONS>
export type CopyOptions = OptionsOf<typeof COPY_OPTIONS>
export type ImageOptions = OptionsOf<typeof IMAGE_OPTIONS>
export type TableOptions = OptionsOf<typeof TABLE_OPTIONS>
export type DiscardOptions = OptionsOf<typeof DISCARD_OPTIONS>
export type VerifyingOptions = OptionsOf<typeof VERIFYING_OPTIONS>
