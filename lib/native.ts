import { createRequire } from 'node:module'
import { dirname } from 'node:path'
import { BackupError } from './errors.ts'

/** Handle of a copy that the addon runs; only ever handed back to the addon. */
export interface CopyJob {
  readonly __copyJob: unique symbol
}

/** An export of an NBD server and how it is asked, see SourceExport of lib/nbd/export.ts. */
export interface CopyExport {
  uri: string
  size: number
  fingerprint: string
  connections: number
  requests: number
  blockMin: number
  blockMax: number
  timeoutMs: number
  /** A connection that is used instead of the first one; its handle is closed thereby. */
  connection?: NbdHandle
}

/** An export that is written to. */
export interface CopyTargetExport extends CopyExport {
  /** The server makes zeroes by itself. */
  canZero: boolean
  /** Zeroes are to take up room (NBD_CMD_FLAG_NO_HOLE). */
  noHole: boolean
}

/** Events of a copy since the last call. */
export interface CopyEvents {
  /** Triples id, offset, length: reads that the caller is to do, see copyCompleteRead. */
  reads: Float64Array
  /** Writes for the caller to do, see copyCompleteWrite. */
  writes: CopyWrite[]
  /** Pairs start, length: areas that cannot be read, see copyRetry and copyGiveUp. */
  failed: Float64Array
  /** Guest bytes from 0 on that are durable: the answer to copySync. */
  synced?: number
}

/** Connection to an NBD server for planning; only ever handed back to the addon. */
export interface NbdHandle {
  readonly __nbdHandle: unique symbol
}

/** A server's description of an export. Sizes in bytes. */
export interface NbdInfo {
  size: number
  multiConn: boolean
  readOnly: boolean
  canTrim: boolean
  /** Whether it makes zeroes by itself. */
  canZero: boolean
  canFlush: boolean
  /** Alignment of offsets and lengths of requests. */
  blockMin: number
  /** Maximum bytes of one request. */
  blockMax: number
  /** Which of the contexts that were asked for the server has, in that order. */
  contexts: boolean[]
  /** Everything in the protocol that identifies the export: a line `key value` for each. */
  fingerprint: string
}

/** A file or a device. */
export interface NativeFile {
  kind: 'file'
  /**
   * Opened again where there are enough descriptors to spare; stays open here until the job has ended
   * in any case.
   */
  fd: number
}

/** A job's source; sizes in bytes. A `reader` is the calling program, see copyCompleteRead. */
export type NativeSource =
  | (NativeFile & {
      size: number
      /** Reads do not count against the rate limit. */
      unlimited?: boolean
    })
  | (CopyExport & { kind: 'export' })
  | { kind: 'reader'; size: number }

/** Result of a copy, and its target. */
export type NativeTarget =
  | {
      kind: 'qcow2'
      store: NativeFile
      clusterBits: number
      /** The backing file's name and format as recorded in the image. */
      backing?: { name: Buffer; format: string }
      /** Whether ranges of nothing but zero flags may share one L2 table. */
      sharedTables: boolean
      compression?: { type: 'zlib' | 'zstd'; level: number }
    }
  | { kind: 'raw'; store: NativeTargetStore }
  /** An existing file, in which skipped ranges stay unchanged; all rows are multiples of `unit`. */
  | { kind: 'patch'; store: NativeFile; unit: number }
  /** The data read is only hashed. */
  | { kind: 'hash'; unit: number; hasBacking: boolean }

/** The target's store. */
export type NativeTargetStore = NativeFile | (CopyTargetExport & { kind: 'export' }) | NativeWriter

/** The calling program, which writes by itself: see copyCompleteWrite. */
export interface NativeWriter {
  kind: 'writer'
  /** Whether it makes zeroes by itself. */
  canZero: boolean
  /** Maximum of writes that it is asked for at once. */
  requests: number
}

/** A write for the caller of a copy to do. */
export interface CopyWrite {
  id: number
  kind: 'write' | 'zero' | 'flush'
  offset: number
  /** Bytes; of a write those of `bytes`. */
  length: number
  /** The bytes of a write; nothing else uses them. */
  bytes?: Buffer
}

/** Parameters of a copy, already checked. */
export interface CopySpec {
  /** Stores that rows name by index; a reader at most once. */
  sources: NativeSource[]
  /** Images of the chain of which the hash is taken, too: indexes of their stores. */
  layers?: { store: number; hasBacking: boolean }[]
  target: NativeTarget
  /** Virtual size, bytes. */
  size: number
  engine: 'auto' | 'io_uring' | 'threads'
  direct: 'auto' | 'on' | 'off'
  /** Maximum of reads in flight. */
  requests: number
  /** Bytes of buffers. */
  memory: number
  /** Bytes read per second; without it there is no limit. */
  rateLimit?: number
  /** Instead: a copy whose limit is for both together. */
  sharesRateOf?: CopyJob
  /** Areas that cannot be read are reported by copyEvents; else the first one ends the copy. */
  holdFailures: boolean
  /** Take the hash of the content, see native/copy/content_hash.h; of the kind `hash` it always is. */
  hash: boolean
}

/** Handle of a comparison that the addon runs; only ever handed back to the addon. */
export interface CompareJob {
  readonly __compareJob: unique symbol
}

/** Parameters of a comparison; every field is required and already checked. */
export interface CompareSpec extends Pick<CopySpec, 'engine' | 'direct' | 'requests'> {
  /** Of both disks, as those of a copy. Rows name them by index. */
  sources: Exclude<NativeSource, { kind: 'reader' }>[]
  /** Bytes of reads in flight and not yet compared. */
  memory: number
  /**
   * Findings are whole granules of this many bytes, and all of them; 0: the first sector that differs
   * or the first row that cannot be read, which ends it.
   */
  granularity: number
}

/** Progress of a comparison since the last call. */
export interface CompareEvents {
  /** Guest bytes from 0 on for which every finding was reported. */
  position: number
  /** Five numbers each: kind, start, length, side, errno; see native/compare/finding.h. */
  findings: Float64Array
}

/** Result of a copy: guest bytes by kind. */
export interface CopyCounters {
  dataBytes: number
  zeroBytes: number
  unchangedBytes: number
  engine: 'io_uring' | 'threads'
  direct: boolean
  /** In hexadecimal, if it was wanted. */
  checksum?: string
  /** Those of the layers of the spec, in their order, if there are any. */
  layerChecksums?: string[]
}

/** The addon's functions. The callers in TypeScript check the arguments. */
export interface Addon {
  /** Versions of the libraries linked into the addon. */
  versions(): { deflate: string; zstd: string; zlib: string }
  /**
   * Runs of data and holes of a file (SEEK_DATA, SEEK_HOLE) from `start` to at most `end`.
   * @returns triples start, length, 1 for data or 0 for a hole; at most `max` runs, contiguous from
   * `start`; the last ends at `end` or the caller asks again from where it ends
   */
  fileExtents(fd: number, start: number, end: number, max: number): Promise<Float64Array>
  /**
   * Reads regular files of a directory, one after the other.
   * @param names each followed by a zero byte
   * @param most bytes that all of them may have
   * @returns their contents, and the length of each; -1 for one that was not read: there is none, it cannot be
   * read, or there was no room for it
   */
  readFiles(
    directory: Buffer,
    names: Buffer,
    most: number,
  ): Promise<{ bytes: Buffer; lengths: Float64Array }>
  /** Size in bytes of a block device, or of a file. */
  deviceSize(fd: number): number
  /**
   * Takes shared locks of single bytes, which last until the file is closed, and then looks whether
   * others have locks of the bytes in `tests`. Where files have no locks nothing is done.
   * @returns the first byte that somebody else has locked; -1: none
   */
  lockFile(fd: number, locks: readonly number[], tests: readonly number[]): number
  /**
   * Locks one byte of an open file, which need not be there, for this opening of it, until it is unlocked or
   * closed. Fails with code ENOLCK, EOPNOTSUPP or alike where files have no locks.
   * @returns false if another has it locked
   */
  lockByte(fd: number, byte: number, kind: 'exclusive' | 'shared' | 'none'): boolean
  /**
   * Shares blocks of one file with another: triples offset in `from`, offset in `to`, length.
   * @returns how many were shared before the first that cannot be
   */
  cloneRanges(from: number, to: number, ranges: Float64Array): Promise<number>
  /**
   * Makes areas of a file, pairs of start and length, holes. Where there are none nothing is done.
   * @returns how many were made, before the first that cannot be
   */
  punchFile(fd: number, areas: Float64Array): Promise<number>
  /** Ends the process at once: no handler runs, no thread is waited for. */
  exitNow(status: number): never
  /** Gives an unnamed file (O_TMPFILE) a name; fails with EEXIST if the name is taken. */
  linkFile(fd: number, path: Buffer): void
  /** Target of an open symbolic link (O_PATH), whatever has its name by now. */
  readLink(fd: number): Buffer
  /**
   * Lets two names of one file system change places, atomically. Fails with code EINVAL or ENOSYS
   * where the file system or the kernel cannot do that.
   */
  exchangeNames(a: Buffer, b: Buffer): void
  /**
   * The backing file of an open loop device; undefined for another device, or without one. `rdev`
   * is 0 unless that is a device itself.
   */
  loopBacking(
    fd: number,
  ): { dev: bigint; ino: bigint; rdev: bigint; offset: bigint; sizeLimit: bigint } | undefined
  /**
   * Starts to connect to an NBD server, on a thread of the connection's own. Calls about it are
   * carried out one at a time, in order; each rejects with code ECANCELED once it is closed.
   * @param contexts metadata contexts to negotiate; one that ends in a colon means the only one that the server
   * has below that
   */
  nbdOpen(spec: { uri: string; timeoutMs: number; contexts: string[] }): NbdHandle
  /** Resolves when it is connected; rejects with code ELIBACC where libnbd is missing. */
  nbdConnect(handle: NbdHandle): Promise<NbdInfo>
  /**
   * One block status reply. Rejects with code EPROTO if it is malformed: nothing else is to be
   * asked on this connection then.
   * @returns for each context, in the order asked for, pairs of length and flags from `start` on:
   * they may end before or after the range, each elsewhere; empty if the server left it out
   */
  nbdStatus(handle: NbdHandle, start: number, length: number): Promise<Float64Array[]>
  /**
   * Discards ranges of the export, pairs of start and length; several at a time.
   * Rejects with code EPERM if the export is read-only, EINVAL if the server cannot trim.
   */
  nbdTrim(handle: NbdHandle, ranges: Float64Array): Promise<void>
  /** Reads a range, on the server's terms of alignment. */
  nbdRead(handle: NbdHandle, start: number, length: number): Promise<Buffer>
  /** Writes bytes, which may be changed as soon as it returns. */
  nbdWrite(handle: NbdHandle, start: number, bytes: Buffer): Promise<void>
  /**
   * Makes a range zero.
   * @param noHole it is to take up room (NBD_CMD_FLAG_NO_HOLE)
   */
  nbdZero(handle: NbdHandle, start: number, length: number, noHole: boolean): Promise<void>
  /** What was written over the connection, or by others that the server answers as one, is durable. */
  nbdFlush(handle: NbdHandle): Promise<void>
  nbdClose(handle: NbdHandle): void
  /**
   * Expands the stream of a compressed cluster, on the thread pool; rejects with code EILSEQ if it is none of
   * that size. The stream is not to be changed meanwhile.
   */
  decompressCluster(type: 'deflate' | 'zstd', stream: Buffer, size: number): Promise<Buffer>
  /** BLAKE2b of 32 bytes, on the thread pool; the bytes are not to be changed meanwhile. */
  blake2bOf(bytes: Buffer): Promise<Buffer>
  /** Starts a copy on its own thread. Only lib/copy calls the functions named `copy…`. */
  copyStart(spec: CopySpec): CopyJob
  /**
   * Hands over rows of the plan, those of layers among them (see lib/copy/layer-rows.ts); resolves when more can be taken: false
   * if the job ended.
   */
  copyPush(job: CopyJob, rows: Float64Array, files: number): Promise<boolean>
  /** No more rows come; resolves when the target lacks only its last sync. */
  copyFinish(job: CopyJob): Promise<CopyCounters>
  copyCancel(job: CopyJob): void
  /** Resolves when something happened; with undefined when the job has ended. One call at a time. */
  copyEvents(job: CopyJob): Promise<CopyEvents | undefined>
  /** The bytes of a read that was wanted, all of them; undefined: it failed. */
  copyCompleteRead(job: CopyJob, id: number, bytes: Uint8Array | undefined): void
  /** Reports the result of a requested write. */
  copyCompleteWrite(job: CopyJob, id: number, done: boolean): void
  /** Reads a failed area again, or ends the copy with its failure. */
  copyRetry(job: CopyJob, start: number): void
  copyGiveUp(job: CopyJob, start: number): void
  /** Syncs the target's data so far; copyEvents reports the completion. */
  copySync(job: CopyJob): void
  /** Starts a comparison on its own thread. Only lib/compare calls the functions named `compare…`. */
  compareStart(spec: CompareSpec): CompareJob
  /**
   * Hands over rows of the plan, two for each range: where either side has it. Resolves when there
   * is room for more: false if the job ended.
   */
  comparePush(job: CompareJob, rows: Float64Array, files: number): Promise<boolean>
  /** No more rows come; resolves when all are compared, or the first finding was made. */
  compareFinish(job: CompareJob): Promise<{ bytesRead: number; engine: 'io_uring' | 'threads' }>
  compareCancel(job: CompareJob): void
  /** Resolves when something happened; with undefined when the job has ended. One call at a time. */
  compareEvents(job: CompareJob): Promise<CompareEvents | undefined>
  /** Fills in position, dataBytes, zeroBytes, unchangedBytes and bytes read. */
  copyProgress(job: CopyJob, into: Float64Array): void
}

/** All functions, so that an addon of another version is noticed when it is loaded. */
const FUNCTIONS: Record<keyof Addon, true> = {
  versions: true,
  fileExtents: true,
  readFiles: true,
  deviceSize: true,
  lockFile: true,
  lockByte: true,
  cloneRanges: true,
  punchFile: true,
  linkFile: true,
  exchangeNames: true,
  loopBacking: true,
  readLink: true,
  exitNow: true,
  nbdOpen: true,
  nbdConnect: true,
  nbdStatus: true,
  nbdTrim: true,
  nbdRead: true,
  nbdWrite: true,
  nbdZero: true,
  nbdFlush: true,
  decompressCluster: true,
  blake2bOf: true,
  nbdClose: true,
  copyStart: true,
  copyPush: true,
  copyFinish: true,
  copyCancel: true,
  copyEvents: true,
  copyCompleteRead: true,
  copyCompleteWrite: true,
  copyRetry: true,
  copyGiveUp: true,
  copySync: true,
  copyProgress: true,
  compareStart: true,
  comparePush: true,
  compareFinish: true,
  compareCancel: true,
  compareEvents: true,
}

let addon: Addon | undefined

/**
 * Loads the addon on first use: commands that only read metadata never pay for it.
 * @throws BackupError ADDON_MISSING with the remedy
 */
export function native(): Addon {
  addon ??= load()
  return addon
}

/** Whether it was used. */
export function isNativeLoaded(): boolean {
  return addon !== undefined
}

function load(): Addon {
  let loaded: Partial<Addon>
  try {
    const require = createRequire(import.meta.url)
    const root = dirname(require.resolve('qcow2-backup/package.json'))
    loaded = require('node-gyp-build')(root)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    throw missing(code === 'ERR_DLOPEN_FAILED' ? `cannot be loaded (${message})` : MISSING, error)
  }
  const lacking = Object.keys(FUNCTIONS).find(
    (name) => typeof loaded?.[name as keyof Addon] !== 'function',
  )
  if (lacking !== undefined) throw missing(`is of another version (it has no ${lacking})`)
  return loaded as Addon
}

const MISSING = `is not built for ${process.platform}-${process.arch}`

function missing(why: string, cause?: unknown): BackupError {
  const remedy = 'build it with: npm rebuild qcow2-backup (needs a C++20 compiler)'
  return new BackupError('ADDON_MISSING', 'native addon', `${why}; ${remedy}`, { cause })
}
