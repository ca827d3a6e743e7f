/** The options of the library's functions, in groups: their keys, types, ranges, and help. */
import type { Progress } from './progress.ts'
import {
  BOOLEAN,
  callback,
  choice,
  list,
  milliseconds,
  type OptionsOf,
  option,
  PATH,
  powerOfTwo,
  SHA256,
  SIGNAL,
  TEXT,
  whole,
} from './schema.ts'
import { shortSize } from './units.ts'

export const FORMAT = choice('raw', 'qcow2')

/**
 * Where the server answers several connections as one (multi-conn). Measured with 20,000 scattered
 * pieces of 64 KiB from qemu-storage-daemon: 1 connection 3.8 to 4.2 s, 2 3.4 to 3.7 s, 4 3.0 to
 * 3.4 s, 8 the same.
 */
export const DEFAULT_CONNECTIONS = 4
/** Long enough for a server that waits for its disk to spin up. */
export const DEFAULT_TIMEOUT_SECONDS = 30
/** A day. */
const MAX_TIMEOUT_SECONDS = 86_400

/**
 * Reads are at most 1 MiB; scattered data is read in its own pieces. Measured with
 * 20,000 scattered pieces of 64 KiB over NBD: 16 take 6.3 s, 64 take 4.5 s, 128 take 4.1 s. With
 * large pieces the buffers bound them, and 4, 8, 16 and 32 take the same time within the noise.
 */
export const DEFAULT_REQUESTS = 64
/** With waits that double, under a second in all. */
export const DEFAULT_RETRIES = 3

export const DEFAULT_CLUSTER_SIZE = 65536
export const MIN_CLUSTER_SIZE = 512
const MAX_CLUSTER_SIZE = 2 ** 21

/** Limits of a bitmap's granularity, bytes. */
const MIN_GRANULARITY = 512
const MAX_GRANULARITY = 2 ** 31

/** Levels that each library knows, and the one its authors made the default (zlib: see below). */
export const COMPRESSION_LEVELS = {
  // libdeflate's scale. Level 2 makes smaller streams than zlib's own default, three times as fast.
  zlib: { min: 1, max: 12, standard: 2 },
  zstd: { min: 1, max: 22, standard: 3 },
} as const

/** For functions that can take long. */
export const CONTROL_OPTIONS = {
  /**
   * Ends the call, which rejects with BackupError ABORTED, whose cause is the signal's reason. The
   * target is not made.
   */
  signal: option(SIGNAL, 'stops the call'),
  /** Called at most ten times a second, and once at the end. */
  onProgress: option(
    callback<(progress: Progress) => void>(),
    'called with the progress of the call',
  ),
} as const

/** Where files that images name may be, and their format. */
export const CHAIN_OPTIONS = {
  /** Directories below which files named inside images may be opened, besides their own. */
  allowPaths: option(
    list(PATH),
    'let images name files below this directory too; repeatable, / allows all',
    { flag: 'allow-path', value: 'dir' },
  ),
  /** The format of a backing file whose image does not record one. */
  backingFormat: option(FORMAT, 'the format of a backing file whose image does not record it', {
    value: 'format',
  }),
} as const

/** Access to an NBD or imageio server. */
export const NBD_OPTIONS = {
  /** Connections to a server, NBD or imageio, 1 to 16. Default: 4 if it allows several, else 1. */
  connections: option(whole(1, 16), 'connections to a server', {
    fallback: `${DEFAULT_CONNECTIONS} if it allows several`,
  }),
  /** How long a server may make no progress, milliseconds, up to a day. Default 30 000. */
  timeoutMs: option(milliseconds(MAX_TIMEOUT_SECONDS), 'how long a server may make no progress', {
    flag: 'timeout',
    fallback: `${DEFAULT_TIMEOUT_SECONDS}`,
  }),
} as const

/** By what the server of an `https` URL is recognised: else by the authorities that Node knows. */
export const TRUST_OPTIONS = {
  /** File with the PEM certificate of the authority that signed the imageio server's. */
  ca: option(PATH, "the authority of an imageio server's certificate, PEM", { value: 'file' }),
  /** SHA-256 of the imageio server's certificate, in hexadecimal: it must have this one. */
  fingerprint: option(SHA256, "the SHA-256 that an imageio server's certificate must have", {
    value: 'sha256',
  }),
  /** Send the ticket to whichever imageio server answers, without a look at its certificate. */
  insecure: option(BOOLEAN, 'trust whichever imageio server answers'),
} as const

export const POINT_OPTIONS = {
  /**
   * Id or name of an internal snapshot of the topmost image: the disk is read as it was then, and is
   * of the size that it had then. An id is looked for first.
   */
  snapshot: option(TEXT, 'read the disk as it was at this internal snapshot, by its id or name'),
} as const

/** Others may be writing to the image. */
export const SHARE_OPTIONS = {
  /**
   * Read images that another process may be writing to; the data read may then be inconsistent.
   * Default: they are refused.
   */
  forceShare: option(BOOLEAN, 'also read images that another process may be writing to', {
    letter: 'U',
  }),
} as const

/** How a disk is opened. */
export const OPEN_OPTIONS = {
  /**
   * The dirty bitmap with the changes: of an image, a persistent one of its own; of an NBD
   * server, one that it exports as `qemu:dirty-bitmap:NAME`; of an imageio server, that of the ticket,
   * whatever the name.
   */
  bitmap: option(TEXT, 'the dirty bitmap that records what changed'),
  /** The image format. Default: recognised by its magic. */
  format: option(FORMAT, 'the format', { letter: 'f', value: 'format', fallback: 'by its magic' }),
  ...POINT_OPTIONS,
  ...CHAIN_OPTIONS,
  ...SHARE_OPTIONS,
  ...NBD_OPTIONS,
  ...TRUST_OPTIONS,
  /**
   * Ask an NBD server for no more bytes than this at once, and not for holes: 65536 for a point in
   * time that QEMU before 8.0 exports (`snapshot-access`), whose other answers can be wrong.
   */
  requestSize: option(
    powerOfTwo(65536, 2 ** 25),
    'ask an NBD server for no more than this at once, and not for holes',
  ),
} as const

export const FORCE_OPTIONS = {
  /** Replace a target that exists. Its old content stays until the new one is complete. */
  force: option(BOOLEAN, 'replace a target that exists, once the new one is complete'),
} as const

const RATE = whole(1, Number.MAX_SAFE_INTEGER, 'size')

export const RATE_OPTIONS = {
  /** Maximum bytes read per second. Default: no limit. */
  rateLimit: option(RATE, 'maximum bytes read per second', { fallback: 'no limit' }),
} as const

/** How any copy is run. */
export const COPY_OPTIONS = {
  ...FORCE_OPTIONS,
  /** Maximum read and write requests in flight, 1 to 1024. Default 64. */
  requests: option(whole(1, 1024), 'maximum requests in flight', {
    fallback: `${DEFAULT_REQUESTS}`,
  }),
  /** How often a failed read is retried, 0 to 100. Default 3. */
  retries: option(whole(0, 100), 'how often a failed read is retried', {
    fallback: `${DEFAULT_RETRIES}`,
  }),
  ...RATE_OPTIONS,
  /** The I/O engine. Default `auto`: io_uring, or threads where the kernel refuses it. */
  engine: option(choice('auto', 'io_uring', 'threads'), 'the I/O engine', {
    value: 'engine',
    fallback: 'auto',
    env: 'QCOW2_BACKUP_ENGINE',
  }),
  /** O_DIRECT. Default `auto`: where file system and cluster size allow it; `on` fails otherwise. */
  direct: option(choice('auto', 'on', 'off'), 'bypass the page cache, O_DIRECT', {
    value: 'when',
    fallback: 'auto',
    env: 'QCOW2_BACKUP_DIRECT',
  }),
  ...CONTROL_OPTIONS,
} as const

export const CLUSTER_SIZE_OPTIONS = {
  /** Bytes, a power of two from 512 to 2 MiB. Default 64 KiB. */
  clusterSize: option(powerOfTwo(MIN_CLUSTER_SIZE, MAX_CLUSTER_SIZE), 'the cluster size', {
    fallback: shortSize(DEFAULT_CLUSTER_SIZE),
  }),
} as const

const { zlib, zstd } = COMPRESSION_LEVELS
/** Either's; whether it is one of the method given is known with all options. */
const LEVEL = {
  ...whole(Math.min(zlib.min, zstd.min), Math.max(zlib.max, zstd.max)),
  range: `zlib ${zlib.min} to ${zlib.max}, zstd ${zstd.min} to ${zstd.max}`,
}

/** How the clusters of a new qcow2 image are made. */
export const IMAGE_OPTIONS = {
  ...CLUSTER_SIZE_OPTIONS,
  /** Compress data clusters. Default: no. */
  compress: option(choice('zlib', 'zstd'), 'compress the data clusters', { value: 'method' }),
  /** zlib 1 to 12 (libdeflate's scale), default 2; zstd 1 to 22, default 3. */
  compressionLevel: option(LEVEL, 'the compression level'),
} as const

/** How the tables of an image over a backing file are made. */
export const TABLE_OPTIONS = {
  /**
   * Ranges of the disk in which everything became zero share one L2 table, so that a wiped terabyte
   * takes a few clusters. Default true. Images that a virtual machine is to write to must not have
   * shared tables: QEMU leaves their refcounts in a state that `qemu-img check` calls corrupt.
   * Without them each such range takes a table of its own.
   */
  sharedTables: option(BOOLEAN, 'let ranges of zeroes share one L2 table', {
    fallback: 'on',
    off: 'give every L2 table of zeroes a cluster of its own: for an image that a VM will write to',
  }),
} as const

export const DISCARD_OPTIONS = {
  /**
   * What will not be read is discarded at the source (NBD TRIM) before anything is read, and data that
   * is durable in the target once a second, in multiples of this many bytes: the storage that keeps the point in time, such as QEMU's fleecing
   * image, shrinks as the copy goes on. A copy that fails later cannot be repeated from that source.
   * QEMU takes 64 KiB or the cluster size of the fleecing image, whichever is larger.
   */
  discardAfterCopy: option(
    powerOfTwo(MIN_GRANULARITY, MAX_GRANULARITY),
    'discard durable data at the NBD server, in multiples of this size (QEMU: 64K)',
    { value: 'granule' },
  ),
} as const

/** Verification of a new image. */
export const VERIFYING_OPTIONS = {
  /**
   * Before the image gets its name, check it, read back its content, and compare that with a
   * hash of the source's blocks as they were read. Takes as long as reading the image.
   */
  verify: option(BOOLEAN, 'check the new image, and compare its content with the data read'),
  /** Write a file beside the image, `IMAGE.manifest.json`, against which it can be verified later. */
  manifest: option(BOOLEAN, 'keep the hash of the content beside the image, for verify'),
} as const

/** Bytes that one bit of a bitmap stands for. */
export const GRANULARITY_OPTIONS = {
  granularity: option(
    powerOfTwo(MIN_GRANULARITY, MAX_GRANULARITY),
    'bytes that one bit stands for',
  ),
} as const

/** Cancelling and progress of a call. */
export type ControlOptions = OptionsOf<typeof CONTROL_OPTIONS>
/** How a copy is run. */
export type CopyOptions = OptionsOf<typeof COPY_OPTIONS>
/** How the clusters of a new qcow2 image are made. */
export type ImageOptions = OptionsOf<typeof IMAGE_OPTIONS>
/** How the tables of an image over a backing file are made. */
export type TableOptions = OptionsOf<typeof TABLE_OPTIONS>
/** Discarding copied data at the source. */
export type DiscardOptions = OptionsOf<typeof DISCARD_OPTIONS>
/** Verification of a new image. */
export type VerifyingOptions = OptionsOf<typeof VERIFYING_OPTIONS>
