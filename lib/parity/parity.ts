import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { BackupError } from '../errors.ts'
import { removeDirectory, temporaryDirectory } from '../files.ts'
import type { ControlOptions } from '../options.ts'
import { positions } from '../progress.ts'
import { parseVersion } from '../qemu-img/version.ts'
import { difference } from './difference.ts'
import { type ProgramOutput, runProgram, textOf } from './program.ts'
import { requireAllowed } from './require-allowed.ts'

/** How images are read. */
export interface ParityOptions extends ControlOptions {
  /** The qemu-img to compare with. Default: `qemu-img`, found in PATH. */
  against?: string
  /** The images' format. Default: recognised by their first bytes, by each program itself. */
  format?: 'raw' | 'qcow2'
  /** Directories below which files named inside images may be opened by us; qemu-img opens any. */
  allowPaths?: readonly string[]
  /** The format of a backing file whose image does not record one. */
  backingFormat?: 'raw' | 'qcow2'
  /** Also images that another process may be writing to. */
  forceShare?: boolean
}

/** Result of one command on one image. */
export interface CommandComparison {
  image: string
  /** The command with its options, without the image: `check --output=json`. */
  command: string
  /** Both programs printed the same on both streams, and ended with the same status. */
  same: boolean
  /** The exit status of both; of qemu-img, where they differ. */
  status: number
  /** The difference in the form of `diff -u`, from qemu-img's to ours. */
  difference?: string
}

const CLI = fileURLToPath(new URL('../cli/main.cjs', import.meta.url))
const COMMANDS = [
  ['info', '--backing-chain'],
  ['info', '--backing-chain', '--output=json'],
  ['check'],
  ['check', '--output=json'],
  ['map'],
  ['map', '--output=json'],
  ['measure', '-O', 'qcow2'],
  ['measure', '-O', 'qcow2', '--output=json'],
]

/**
 * Runs our commands and qemu-img's on images, side by side, and compares their output byte for
 * byte, and their exit statuses. Yields as each pair is done. Output goes through files in the
 * system's temporary directory, so that any amount of it takes no memory.
 * @throws BackupError NOT_ALLOWED for an image that names files it may not; IO if qemu-img cannot be run, UNSUPPORTED if it reports no version, ABORTED
 */
export async function* compareWithQemuImg(
  images: readonly string[],
  options: ParityOptions = {},
): AsyncGenerator<CommandComparison> {
  const { against = 'qemu-img', signal, onProgress } = options
  const all = images.length * COMMANDS.length
  const tell = positions('parity', all, onProgress)
  let done = 0
  const version = await versionOf(against, signal)
  const directory = await temporaryDirectory('qcow2-backup-parity-')
  try {
    for (const image of images) {
      await requireAllowed(image, options)
      for (const command of COMMANDS) {
        const [name, ...rest] = command
        const common = [...rest, ...commonOptions(options)]
        const ours = [...ownOptions(options), '--qemu-version', version]
        // A name may begin with a dash.
        const operand = image.startsWith('-') ? `./${image}` : image
        const a = await runProgram(
          [against, name, ...common, operand],
          join(directory, 'qemu-img'),
          signal,
        )
        const b = await runProgram(
          [process.execPath, CLI, name, ...common, ...ours, operand],
          join(directory, 'qcow2-backup'),
          signal,
        )
        const compared = await compare(image, command.join(' '), a, b, signal)
        done++
        tell?.(done, done === all)
        yield compared
      }
    }
  } finally {
    await removeDirectory(directory)
  }
}

async function versionOf(against: string, signal?: AbortSignal): Promise<string> {
  const text = await textOf([against, '--version'], signal)
  const version = text.split('\n')[0].replace(/^qemu-img version /, '')
  if (parseVersion(version)) return version
  throw new BackupError('UNSUPPORTED', against, `reports no version: ${text.slice(0, 60).trim()}`)
}

function commonOptions({ format, forceShare }: ParityOptions): string[] {
  const options: string[] = []
  if (format !== undefined) options.push('-f', format)
  if (forceShare) options.push('-U')
  return options
}

function ownOptions({ allowPaths = [], backingFormat }: ParityOptions): string[] {
  const options = allowPaths.flatMap((path) => ['--allow-path', path])
  if (backingFormat !== undefined) options.push('--backing-format', backingFormat)
  return options
}

async function compare(
  image: string,
  command: string,
  theirs: ProgramOutput,
  ours: ProgramOutput,
  signal?: AbortSignal,
): Promise<CommandComparison> {
  const parts: string[] = []
  if (theirs.status !== ours.status) {
    parts.push(`-exit status ${theirs.status}\n+exit status ${ours.status}\n`)
  }
  for (const stream of ['stdout', 'stderr'] as const) {
    const found = await difference(theirs[stream], ours[stream], stream, signal)
    if (found !== undefined) parts.push(found)
  }
  const same = parts.length === 0
  return {
    image,
    command,
    same,
    status: theirs.status,
    difference: same ? undefined : parts.join(''),
  }
}
