import { type Command, Option } from 'commander'
import type {
  CopyOptions,
  DiscardOptions,
  ImageOptions,
  OpenOptions,
  VerifyingOptions,
} from '../backup/types.ts'
import { usageError } from '../errors.ts'
import { parseSize } from '../units.ts'

/**
 * Options that several commands share, in groups. Here texts become numbers; whether a value can
 * be is for the library to judge, which is also called by others.
 */

/** What `addSourceOptions` yields. */
export interface SourceFlags {
  format?: 'raw' | 'qcow2'
  allowPath?: string[]
  backingFormat?: 'raw' | 'qcow2'
  forceShare?: boolean
  connections?: number
  /** Seconds. */
  timeout?: number
}

/**
 * How the source is opened.
 * @param format what the format is without `-f`, for the help text
 */
export function addSourceOptions(command: Command, format = 'by its magic'): Command {
  return addNbdOptions(addImageAccess(command, format))
}

/** How NBD servers are asked. */
export function addNbdOptions(command: Command): Command {
  return command
    .option(
      '--connections <n>',
      'connections to an NBD server, 1 to 16 (default: 4 if it allows several)',
      wholeNumber('--connections'),
    )
    .option(
      '--timeout <seconds>',
      'how long an NBD server may be silent (default: 30)',
      wholeNumber('--timeout'),
    )
}

/** How images in files are opened. */
export function addImageAccess(command: Command, format: string): Command {
  return addFormats(command, format).option(
    '-U, --force-share',
    'also read images that another process may be writing to',
  )
}

/** What images in files are, and where those may be that they name. */
export function addFormats(command: Command, format: string): Command {
  const formats = new Option('-f, --format <format>', `the format (default: ${format})`)
  return addNamedFiles(command.addOption(formats.choices(['raw', 'qcow2'])))
}

/** Where files may be that images name, and what those are. */
export function addNamedFiles(command: Command): Command {
  return command
    .option(
      '--allow-path <dir>',
      'let images name files below this directory too; repeatable, / allows all',
      (dir: string, dirs: string[] = []) => [...dirs, dir],
    )
    .addOption(
      new Option(
        '--backing-format <format>',
        'the format of a backing file whose image does not record it',
      ).choices(['raw', 'qcow2']),
    )
}

export function openOptions(flags: SourceFlags): OpenOptions {
  return {
    format: flags.format,
    allowPaths: flags.allowPath,
    backingFormat: flags.backingFormat,
    forceShare: flags.forceShare,
    connections: flags.connections,
    timeoutMs: flags.timeout === undefined ? undefined : flags.timeout * 1000,
  }
}

/** What `addImageOptions` yields: the library's options under their own names. */
export type ImageFlags = Required<ImageOptions>

export function addClusterSize(command: Command): Command {
  return command.option(
    '--cluster-size <size>',
    '512 to 2M, a power of two (default: 64K)',
    size('--cluster-size'),
  )
}

/** How a new qcow2 image is made. */
export function addImageOptions(command: Command): Command {
  return addClusterSize(command)
    .addOption(
      new Option('--compress <method>', 'compress the data clusters').choices(['zlib', 'zstd']),
    )
    .option(
      '--compression-level <n>',
      'zlib: 1 to 12, zstd: 1 to 22',
      wholeNumber('--compression-level'),
    )
}

export function imageOptions(flags: ImageOptions): ImageOptions {
  const { clusterSize, compress, compressionLevel } = flags
  return { clusterSize, compress, compressionLevel }
}

/** For sources that keep a point in time. `addDiscardOptions` yields the library's own options. */
export function addDiscardOptions(command: Command): Command {
  return command.option(
    '--discard-after-copy <granule>',
    'discard at the NBD server what is safely stored, in multiples of this size (QEMU: 64K)',
    size('--discard-after-copy'),
  )
}

export function discardOptions({ discardAfterCopy }: DiscardOptions): DiscardOptions {
  return { discardAfterCopy }
}

/** How it is made sure of what was made. `addVerifyingOptions` yields the library's own options. */
export function addVerifyingOptions(command: Command): Command {
  return command
    .option('--verify', 'check the new image, and compare what it holds with what was read')
    .option('--manifest', 'keep the hash of the content beside the image, for verify --manifest')
}

export function verifyingOptions({ verify, manifest }: VerifyingOptions): VerifyingOptions {
  return { verify, manifest }
}

/** What `addCopyOptions` yields. */
export interface CopyFlags
  extends Pick<CopyOptions, 'force' | 'requests' | 'retries' | 'rateLimit' | 'engine' | 'direct'> {
  json?: boolean
  progress?: 'json' | false
  debug?: boolean
}

/** How a copy runs and what it tells. */
export function addCopyOptions(command: Command): Command {
  const options = command
    .option('--force', 'replace a target that exists, once the new one is complete')
    .option(
      '--requests <n>',
      'most reads and writes in flight, 1 to 1024 (default: 64)',
      wholeNumber('--requests'),
    )
    .option(
      '--retries <n>',
      'times that what cannot be read is read again, 0 to 100 (default: 3)',
      wholeNumber('--retries'),
    )
    .addOption(rateLimit())
    .addOption(
      new Option('--engine <engine>', 'how the kernel is asked (default: auto)')
        .choices(['auto', 'io_uring', 'threads'])
        .env('QCOW2_BACKUP_ENGINE'),
    )
    .addOption(
      new Option('--direct <when>', 'bypass the page cache, O_DIRECT (default: auto)')
        .choices(['auto', 'on', 'off'])
        .env('QCOW2_BACKUP_DIRECT'),
    )
    .option('--json', 'print the result as one JSON object')
  return addProgressOptions(options)
}

export function rateLimit(): Option {
  const what = 'most bytes read per second (default: no limit)'
  return new Option('--rate-limit <size>', what).argParser(size('--rate-limit'))
}

/** What is shown while something takes its time. */
export function addProgressOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--progress <form>', 'print progress on stderr as lines of JSON').choices([
        'json',
      ]),
    )
    .option('--no-progress', 'no progress bar on a terminal')
}

export function copyOptions(flags: CopyFlags): CopyOptions {
  const { force, requests, retries, rateLimit, engine, direct } = flags
  return { force, requests, retries, rateLimit, engine, direct }
}

/** A parser of sizes for the option named. */
export function size(option: string): (text: string) => number {
  return (text) => parseSize(text, option)
}

/** A parser of counts for the option named. */
export function wholeNumber(option: string): (text: string) => number {
  return (text) => {
    if (!/^\d{1,15}$/.test(text)) throw usageError(option, `'${text}' is not a whole number`)
    return Number(text)
  }
}
